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
-- The field `idle`; false where there is none, nil until it is read.
local idle_digests = nil

local function types_key(digest)
  return base .. 'types:' .. digest
end

local function note_waiting(type, count)
  waiting[type or ''] = (waiting[type or ''] or 0) + (count or 1)
end

-- Rings so many of the workers with these types; returns how many more were to be rung. A ring without a subscriber was that of a
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

-- Returns whether there may be idle workers with these types afterwards: it is not looked for where as many were found as were rung, so
-- that a worker which is rung and idle again in turn has nothing changed but its own place.
local function ring_for_each(digest)
  local is_asked, is_used_up = false, false
  for type, count in pairs(waiting) do
    if count > 0 and (type == '' or digest == '*' or redis.call('sismember', types_key(digest), type) == 1) then
      local left = ring(digest, type, count)
      is_asked, is_used_up = true, is_used_up or left > 0
      waiting[type] = type == '' and count or left
    end
  end
  return not is_used_up and (is_asked or redis.call('exists', base .. 'idle:' .. digest) == 1)
end

local function read_idle()
  if idle_digests == nil then
    idle_digests = redis.call('hget', counters_key, 'idle')
  end
  return idle_digests
end

-- Rings a worker for each job that this call has made claimable, as far as there are idle ones that have its type.
local function wake_workers()
  if not (next(waiting) and read_idle()) then
    return
  end
  local left = {}
  for digest in string.gmatch(idle_digests, '%S+') do
    if ring_for_each(digest) then
      left[#left + 1] = digest
    end
  end
  local before = idle_digests
  idle_digests = left[1] and table.concat(left, ' ') or false
  if not idle_digests then
    redis.call('hdel', counters_key, 'idle')
  elseif idle_digests ~= before then
    redis.call('hset', counters_key, 'idle', idle_digests)
  end
end

local function note_idle(digest, worker, now)
  redis.call('zadd', base .. 'idle:' .. digest, now, worker)
  redis.call('pexpire', base .. 'idle:' .. digest, IDLE_MS)
  local before = read_idle() or ''
  if not string.find(' ' .. before .. ' ', ' ' .. digest .. ' ', 1, true) then
    idle_digests = before == '' and digest or before .. ' ' .. digest
    redis.call('hset', counters_key, 'idle', idle_digests)
  end
end
