-- Which workers of the queue are idle, and how they are rung: needs lib/queue.lua.
--
-- A worker says with each claim which types it has, by a digest: `types:DIGEST` is the set of them, and * stands for all. One whose
-- claim found less than it asked for stands in `idle:DIGEST` by the moment of that claim, until it is rung: the one that has claimed
-- the longest ago first, so that workers with nothing to do are rung before those that have just been given something. The field
-- `idle` of the counters names the digests that may have idle workers. Both keys end by themselves an hour after the last such claim;
-- an idle worker claims more often than that.
local IDLE_MS = 3600000
-- How many jobs of each type this call has made claimable; of '', more than none of a type that is not known.
local waiting = {}

local function types_key(digest)
  return base .. 'types:' .. digest
end

local function note_waiting(type, count)
  waiting[type or ''] = (waiting[type or ''] or 0) + (count or 1)
end

-- Rings so many of the workers with these types; returns how many more were to be rung. A ring that is heard by nobody was that of a
-- worker which has gone, so the next one is rung in its place.
local function ring(digest, type, count)
  while count > 0 do
    local worker = redis.call('zpopmin', base .. 'idle:' .. digest)[1]
    if not worker then
      return count
    end
    if redis.call('spublish', base .. 'ring:' .. worker, type) > 0 then
      count = count - 1
    end
  end
  return 0
end

local function ring_for_each(digest)
  for type, count in pairs(waiting) do
    if type == '' then
      ring(digest, type, count)
    elseif count > 0 and (digest == '*' or redis.call('sismember', types_key(digest), type) == 1) then
      waiting[type] = ring(digest, type, count)
    end
  end
end

-- Rings a worker for each job that this call has made claimable, as far as there are idle ones that have its type.
local function wake_workers()
  local idle = next(waiting) and redis.call('hget', counters_key, 'idle')
  if not idle then
    return
  end
  local left = {}
  for digest in string.gmatch(idle, '%S+') do
    ring_for_each(digest)
    if redis.call('exists', base .. 'idle:' .. digest) == 1 then
      left[#left + 1] = digest
    end
  end
  if #left == 0 then
    redis.call('hdel', counters_key, 'idle')
  elseif table.concat(left, ' ') ~= idle then
    redis.call('hset', counters_key, 'idle', table.concat(left, ' '))
  end
end

local function note_idle(digest, worker, now)
  redis.call('zadd', base .. 'idle:' .. digest, now, worker)
  redis.call('pexpire', base .. 'idle:' .. digest, IDLE_MS)
  local idle = redis.call('hget', counters_key, 'idle') or ''
  if not string.find(' ' .. idle .. ' ', ' ' .. digest .. ' ', 1, true) then
    redis.call('hset', counters_key, 'idle', idle == '' and digest or idle .. ' ' .. digest)
  end
end
