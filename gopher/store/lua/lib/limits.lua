-- include: lib/parked.lua
-- The limits of a queue as a claim meets them: needs lib/queue.lua. A type has at most four, KIND and what it
-- counts: rate:TYPE and rate:TYPE:KEY, starts in a period; concurrency:TYPE and concurrency:TYPE:KEY, jobs processing. The queue
-- as a whole is the type *. A worker may add bounds of its own, for a breaker or a bulkhead.
--
-- A rate with no burst is a sliding window: never more than `count` starts in any period, whoever claims. Its log holds the starts,
-- near ones counted together, with the last moment of them. With a burst it is a token bucket (Source: Turner, "New directions in
-- communications", IEEE Communications 24/10, 1986): at most count + burst in any period.
local limits_key = base .. 'limits'
local SLICES = 32
-- From the claim to the handler's first line some ms pass, not always the same: a window is kept longer by 2 %, chosen.
local WIDER = 1.02
-- How long what a rate limit has let start is kept at least, so that a clock set back by as much forgives nothing; chosen.
local KEPT_MS = 60000
local rules, rooms, bounds, of_queue = {}, {}, {}, {}

-- The rule of a type: `count ms burst`, the same of each key, then how many at once, and of each key; 0 for no limit.
local function rule_of(type)
  local rule = rules[type]
  if rule == nil then
    local texts = redis.call('hmget', limits_key, type, 'declared:' .. type)
    local text = texts[1] or texts[2]
    rule = false
    if text then
      local numbers = {}
      for number in string.gmatch(text, '%S+') do
        numbers[#numbers + 1] = tonumber(number)
      end
      rule = {rate = {numbers[1], numbers[2], numbers[3]}, key_rate = {numbers[4], numbers[5], numbers[6]},
        concurrency = numbers[7], key_concurrency = numbers[8]}
    end
    rules[type] = rule
  end
  return rule
end

local function window_room(by, count, period_ms, now)
  local kept, used, first = {}, 0, nil
  for moment, starts in string.gmatch(redis.call('get', limit_key(by)) or '', '(%d+):(%d+)') do
    moment, starts = tonumber(moment), tonumber(starts)
    if moment + period_ms > now then
      kept[#kept + 1] = {moment, starts}
      used = used + starts
      first = first or moment
    end
  end
  return {left = count - used, due = (first or now) + period_ms, log = kept, period_ms = period_ms}
end

local function bucket_room(by, count, period_ms, burst, now)
  local known = redis.call('get', limit_key(by))
  local tokens = burst
  if known then
    local left, moment = string.match(known, '^(%S+) (%d+)$')
    tokens = math.min(burst, tonumber(left) + math.max(0, now - tonumber(moment)) * count / period_ms)
  end
  -- What a division has rounded down must not cost a ms of waiting.
  local left = math.floor(tokens + 1e-9)
  return {left = left, due = now + math.ceil((left + 1 - tokens) * period_ms / count), tokens = tokens,
    token_ms = period_ms / count, full_ms = math.ceil(burst * period_ms / count)}
end

local function rate_room(by, rate, now)
  if rate[3] > 0 then
    return bucket_room(by, rate[1], rate[2], rate[3], now)
  end
  return window_room(by, rate[1], math.ceil(rate[2] * WIDER), now)
end

-- A job that a cut script has left among those that run would take the place for good.
local function concurrency_room(by, count)
  local left = count - redis.call('scard', limit_key(by))
  if left <= 0 then
    local id = redis.call('srandmember', limit_key(by))
    if id and redis.call('hget', job_key(id), 'state') ~= 'processing' then
      redis.call('srem', limit_key(by), id)
      left = left + 1
    end
  end
  return {left = left, due = 'inf', ids = {}}
end

local NO_LIMIT = {left = math.huge, due = 0}

local function new_room(by, now)
  local kind, type, rest = string.match(by, '^(%a+):([^:]+)(.*)$')
  local rule = rule_of(type)
  if not rule then
    return NO_LIMIT
  end
  local rate = rest == '' and rule.rate or rule.key_rate
  local concurrency = rest == '' and rule.concurrency or rule.key_concurrency
  if kind == 'rate' and rate[1] > 0 then
    return rate_room(by, rate, now)
  elseif kind == 'concurrency' and concurrency > 0 then
    return concurrency_room(by, concurrency)
  end
  return NO_LIMIT
end

-- How many more jobs may start under a limit, and when to ask again once it is none.
local function room_of(by, now)
  local room = rooms[by]
  if not room then
    room = new_room(by, now)
    rooms[by] = room
  end
  return room
end

-- Takes in what a worker bounds: a type, the bound's name, how many more it takes, and the ms from which to ask again.
local function add_bound(type, by, left, due)
  rooms[by] = rooms[by] or {left = left, due = due, is_bound = true}
  bounds[type] = bounds[type] or {}
  table.insert(bounds[type], by)
end

local function add_limits(found, type, key)
  local rule = rule_of(type)
  if rule then
    if rule.concurrency > 0 then
      found[#found + 1] = 'concurrency:' .. type
    end
    if key and rule.key_concurrency > 0 then
      found[#found + 1] = 'concurrency:' .. type .. ':' .. key
    end
    if rule.rate[1] > 0 then
      found[#found + 1] = 'rate:' .. type
    end
    if key and rule.key_rate[1] > 0 then
      found[#found + 1] = 'rate:' .. type .. ':' .. key
    end
  end
  return found
end

-- Looks at the limits of the queue as a whole. Returns how many of so many jobs they let start, and by which they are fewer.
local function cap(wanted, now)
  local capped_by
  for _, by in ipairs(add_limits(of_queue, '*')) do
    local left = math.max(0, room_of(by, now).left)
    if left < wanted then
      wanted, capped_by = left, by
    end
  end
  return wanted, capped_by
end

-- Whether the jobs of a type are held back by anything at all.
local function is_held_back(type)
  return bounds[type] or of_queue[1] or rule_of(type)
end

-- Lets a job start, or returns the name of what refuses it; then nothing is counted. Of the limits that count what runs, the names
-- are returned second, a line each.
local function admit(id, type, key, now)
  local under = add_limits({unpack(bounds[type] or {})}, type, key)
  for _, by in ipairs(under) do
    if room_of(by, now).left <= 0 then
      return by
    end
  end
  for _, by in ipairs(of_queue) do
    under[#under + 1] = by
  end
  local held
  for _, by in ipairs(under) do
    local room = rooms[by]
    room.left = room.left - 1
    room.taken = (room.taken or 0) + 1
    if room.ids then
      table.insert(room.ids, id)
      held = held and held .. '\n' .. by or by
    end
  end
  return nil, held
end

local function write_window(by, room, now)
  local log = room.log
  local last = log[#log]
  local slice_ms = room.period_ms / SLICES
  if last and math.floor(last[1] / slice_ms) == math.floor(now / slice_ms) then
    last[1], last[2] = now, last[2] + room.taken
  else
    log[#log + 1] = {now, room.taken}
  end
  local words = {}
  for i, entry in ipairs(log) do
    words[i] = string.format('%d:%d', entry[1], entry[2])
  end
  redis.call('set', limit_key(by), table.concat(words, ' '), 'px', room.period_ms + KEPT_MS)
  room.due = log[1][1] + room.period_ms
end

local function write_bucket(by, room, now)
  local tokens = room.tokens - room.taken
  redis.call('set', limit_key(by), string.format('%.6f %d', tokens, now), 'px', room.full_ms + KEPT_MS)
  room.due = now + math.ceil((1 - tokens) * room.token_ms)
end

-- Writes down what was let start. Before the jobs themselves: a limit that a cut script has counted twice errs on the safe side.
local function write_rooms(now)
  for by, room in pairs(rooms) do
    if room.taken then
      if room.log then
        write_window(by, room, now)
      elseif room.tokens then
        write_bucket(by, room, now)
      elseif room.ids then
        redis.call('sadd', limit_key(by), unpack(room.ids))
      end
    end
  end
end
