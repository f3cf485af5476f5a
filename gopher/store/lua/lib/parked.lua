-- Jobs that a limit, a breaker or a bulkhead holds back: needs lib/queue.lua.
--
-- What holds jobs back has a name, KIND:TYPE, or KIND:TYPE:KEY where each key has a limit of its own. Its jobs stand in its own three
-- lines, in the order of their priority's line. It stands in `parked` by the ms from which claims ask it again; `inf` until told.
local parked_key = base .. 'parked'

local function parked_index(by, priority)
  return base .. 'parked:' .. by .. ':' .. (priority or 'normal')
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

-- Has claims ask what holds jobs back again, from now on. Returns whether it holds any.
local function ask_again(by, now)
  return redis.call('zscore', parked_key, by) and redis.call('zadd', parked_key, 'xx', now, by) and true or false
end

-- Gives back what a job that is no longer processing held of concurrency limits: `held` names them, a line each.
-- Returns whether a job waits for it.
local function let_go(id, held, now)
  local is_awaited = false
  for by in string.gmatch(held, '[^\n]+') do
    redis.call('srem', limit_key(by), id)
    is_awaited = ask_again(by, now) or is_awaited
  end
  redis.call('hdel', job_key(id), 'held')
  return is_awaited
end

-- Notes that a job was taken out of its parked line, which the caller does.
local function note_unparked(id)
  redis.call('hdel', job_key(id), 'parked_by')
  redis.call('hincrby', counters_key, 'parked', -1)
end
