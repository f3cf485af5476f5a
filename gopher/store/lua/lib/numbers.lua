-- Numbers that are never given twice: lease tokens, revisions. A counter alone goes back where Redis has lost its last writes, or
-- where a replica that lagged takes over; so the numbers grow with the clock too, which is ahead of any counter that gives fewer
-- than 1,024 a ms. They are exact in Lua until the year 2248.
local NUMBERS_A_MS = 1024

-- Takes `count` numbers from the counter in a field, and returns the one before the first. `last`: what the field holds, where the
-- caller has read it.
local function take_numbers(key, field, count, now, last)
  if last == nil then
    last = redis.call('hget', key, field)
  end
  local before = math.max(tonumber(last or 0) or 0, now * NUMBERS_A_MS)
  redis.call('hset', key, field, string.format('%d', before + count))
  return before
end

-- As text: Lua's own conversion would round it.
local function digits(number)
  return string.format('%d', number)
end
