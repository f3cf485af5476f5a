-- Jobs that are held back, by a limit, a breaker or a bulkhead, or because a worker that met them lacks their type: needs lib/queue.lua.
--
-- What holds jobs back has a name, KIND:TYPE, or KIND:TYPE:KEY where each key has a limit of its own. Its jobs stand in its own three
-- lines, in the order of their priority's line. It stands in `parked` by the ms from which claims ask it again; `inf` until told.
--
-- Of the kind type, it holds the jobs that a worker without that type has met, for those that have it. `foreign` names such types, and
-- `foreign:TYPE` all that only workers with the type ask: its own name, and limits that were to be asked when others claimed. While
-- there are any, the settings say so in `foreign`.
local parked_key = base .. 'parked'
local foreign_key = base .. 'foreign'

local function parked_index(by, priority)
  return base .. 'parked:' .. by .. ':' .. (priority or 'normal')
end

local function is_empty(by)
  return redis.call('exists', parked_index(by, 'high'), parked_index(by, 'normal'), parked_index(by, 'low')) == 0
end

-- Leaves it to the workers with a type to ask what holds jobs back.
local function leave_to(type, by, now)
  redis.call('hset', settings_key, 'foreign', '1')
  redis.call('sadd', foreign_key, type)
  redis.call('zadd', foreign_key .. ':' .. type, 'nx', now, by)
  redis.call('zadd', parked_key, 'inf', by)
end

local function unleave(type, by)
  if redis.call('zrem', foreign_key .. ':' .. type, by) == 1 and redis.call('exists', foreign_key .. ':' .. type) == 0 then
    redis.call('srem', foreign_key, type)
    if redis.call('exists', foreign_key) == 0 then
      redis.call('hdel', settings_key, 'foreign')
    end
  end
end

-- Forgets what was left to the workers with a type and holds no job any more, as after a cancel: where there are none, no claim finds
-- it empty. A call looks at a few, chosen: of types picked at random those that were looked at the longest ago.
local function forget_empty(now)
  for _, type in ipairs(redis.call('srandmember', foreign_key, 10)) do
    for _, by in ipairs(redis.call('zrange', foreign_key .. ':' .. type, 0, 9)) do
      if is_empty(by) then
        redis.call('zrem', parked_key, by)
        unleave(type, by)
      else
        redis.call('zadd', foreign_key .. ':' .. type, 'xx', now, by)
      end
    end
  end
end

-- What a rate limit has let start, or the ids of the jobs that a concurrency limit lets run.
local function limit_key(by)
  return base .. 'limit:' .. by
end

-- Tells the promoters of an earlier moment than the one they sleep for. What is due already does not count: of that, claims know.
local function announce_asking(due, now)
  local following = redis.call('zrangebyscore', parked_key, '(' .. string.format('%d', now), '(inf', 'withscores', 'limit', 0, 1)
  if due > now and (not following[2] or due < tonumber(following[2])) then
    redis.call('spublish', base .. 'control', 'due ' .. string.format('%d', due))
  end
end

-- The type whose workers are to be rung for what is held back; '' for any.
local function rung_for(by)
  local kind, type = string.match(by, '^(%a+):([^:]+)')
  return kind ~= 'breaker' and type ~= '*' and type or ''
end

-- Has claims ask what holds jobs back again, from now on. Returns whether it holds any.
local function ask_again(by, now)
  if string.sub(by, 1, 5) == 'type:' or not redis.call('zscore', parked_key, by) then
    return false
  end
  redis.call('zadd', parked_key, 'xx', now, by)
  note_waiting(rung_for(by))
  return true
end

-- Gives back what a job that is no longer processing held of concurrency limits: `held` names them, a line each.
local function let_go(id, held, now)
  for by in string.gmatch(held, '[^\n]+') do
    redis.call('srem', limit_key(by), id)
    ask_again(by, now)
  end
  redis.call('hdel', job_key(id), 'held')
end

-- Notes that a job was taken out of its parked line, which the caller does.
local function note_unparked(id)
  redis.call('hdel', job_key(id), 'parked_by')
  redis.call('hincrby', counters_key, 'parked', -1)
end
