#!lua flags=allow-oom
-- Proves that what holds jobs back is known, so that claims ask it again; and that of running jobs it counts none that does not run.
-- KEYS[1] settings of the queue
-- ARGV[1] 1 to mend, 0 to look
-- ARGV[2..] names of keys: parked:BY:PRIORITY or limit:concurrency:TYPE; or count:COUNTED:FOUND, where the lines were counted before, in
--   slices, while the count stood still. None: the lines are counted here, to be asked for only where they are few
-- Returns: a list of {kind, id or '', detail, 1 if mended or 0}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/parked.lua
local mends = ARGV[1] == '1'
local now = now_ms()
local reply = {}

local function add(kind, id, detail)
  reply[#reply + 1] = {kind, id, detail, mends and 1 or 0}
end

local function check_line(by, name)
  if redis.call('exists', base .. name) == 1 and not redis.call('zscore', parked_key, by) then
    if mends then
      redis.call('zadd', parked_key, now, by)
    end
    add('MISSING_INDEX', '', name .. ' holds jobs, and nobody would ask ' .. by .. ' again')
  end
  local type = string.match(by, '^type:(.+)$')
  if type and redis.call('exists', base .. name) == 1 and (not redis.call('hget', settings_key, 'foreign')
    or redis.call('sismember', foreign_key, type) == 0
    or not redis.call('zscore', foreign_key .. ':' .. type, by)) then
    if mends then
      leave_to(type, by, now)
    end
    add('MISSING_INDEX', '', name .. ' holds jobs, and workers with the type would not look there')
  end
end

local function check_running(by)
  for _, id in ipairs(redis.call('smembers', limit_key(by))) do
    local job = redis.call('hmget', job_key(id), 'state', 'held')
    if job[1] ~= 'processing' or not string.find('\n' .. (job[2] or '') .. '\n', '\n' .. by .. '\n', 1, true) then
      if mends then
        redis.call('srem', limit_key(by), id)
        ask_again(by, now)
      end
      add('STATE_MISMATCH', id, 'state ' .. (job[1] or 'none') .. ', counted as running under ' .. by)
    end
  end
end

local function parked_count()
  return tonumber(redis.call('hget', counters_key, 'parked') or 0)
end

local function judge_count(counted, found)
  if counted ~= found and counted == parked_count() then
    if mends then
      redis.call('hset', counters_key, 'parked', found)
    end
    add('COUNTER_DRIFT', '', found .. ' jobs are parked, counted are ' .. counted)
  end
end

local function check_count()
  local found = 0
  for _, by in ipairs(redis.call('zrange', parked_key, 0, -1)) do
    for _, priority in ipairs({'high', 'normal', 'low'}) do
      found = found + redis.call('zcard', parked_index(by, priority))
    end
  end
  judge_count(parked_count(), found)
end

for at = 2, #ARGV do
  local counted, found = string.match(ARGV[at], '^count:(-?%d+):(%d+)$')
  local line, by = string.match(ARGV[at], '^parked:(.+):%a+$'), string.match(ARGV[at], '^limit:(concurrency:.+)$')
  if counted then
    judge_count(tonumber(counted), tonumber(found))
  elseif line then
    check_line(line, ARGV[at])
  elseif by then
    check_running(by)
  end
end
if #ARGV == 1 then
  check_count()
end
return reply
