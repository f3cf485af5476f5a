#!lua flags=allow-oom
-- Tells a breaker how attempts ended; it may trip, or close.
-- KEYS[1] the breaker
-- ARGV[1] id of this report: the same id again changes nothing, for a reply that was lost
-- ARGV[2] id of the worker
-- ARGV[3..] an attempt: s, f or n (succeeded, failed, says nothing of the dependency), its permit or ''
-- Returns: {state, ms until which it is open or -1, 1 if no permits are needed, now in ms}
-- Moves: none
-- include: lib/now.lua
-- include: lib/breaker.lua
local report_id, report_key = ARGV[1], KEYS[1] .. ':report:' .. ARGV[2]
local REMEMBERED_MS = 60000
local now = now_ms()
local breaker = read_breaker(now)

if redis.call('get', report_key) == report_id then
  return view(breaker, now)
end
local before = table.concat(view(breaker, now), ' ')
local is_room = false

local function trip()
  breaker.state, breaker.until_ms, breaker.is_proven, breaker.streak = 'open', now + breaker.reset_ms, false, {}
  redis.call('hincrby', key, 'opened_total', 1)
end

-- While it is open or half open, what began before it tripped is old news.
local function note(ending, is_probe)
  if ending == 's' and (breaker.state == 'closed' or (breaker.state == 'half_open' and is_probe)) then
    breaker.state, breaker.is_proven, breaker.streak = 'closed', true, {}
  elseif ending == 'f' and breaker.state == 'closed' then
    table.insert(breaker.streak, string.format('%d', now))
    if #breaker.streak >= breaker.failures then
      trip()
    end
  elseif ending == 'f' and breaker.state == 'half_open' and is_probe then
    trip()
  end
end

for at = 3, #ARGV, 2 do
  local ending, permit = ARGV[at], ARGV[at + 1]
  local is_probe = permit ~= '' and redis.call('zrem', permits_key, permit) == 1
  is_room = is_room or (is_probe and ending == 'n')
  note(ending, is_probe)
end
redis.call('set', report_key, report_id, 'px', REMEMBERED_MS)
if is_room or table.concat(view(breaker, now), ' ') ~= before then
  write_breaker(breaker, now)
else
  redis.call('hset', key, 'streak', table.concat(breaker.streak, ' '))
end
return view(breaker, now)
