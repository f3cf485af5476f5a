#!lua flags=allow-oom
-- Tells which schedules are due, and when the next one is.
-- KEYS[1] settings of the queue
-- ARGV[1] how many at most
-- Returns: {OK, now in ms, ms until the next is due or -1, {name, revision, next_ms, cron, time_zone, jitter_ms, catch_up, labels or
--   nil}...}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/schedule.lua
local now = now_ms()
local ready = redis.call('zrangebyscore', schedules_key, '-inf', now, 'limit', 0, ARGV[1])
local reply = {'OK', now, -1}

for _, name in ipairs(ready) do
  -- A script that was cut short may have left the index at odds with the record, which decides.
  local known = redis.call('hmget', schedule_key(name), 'revision', 'next_ms', 'cron', 'time_zone', 'jitter_ms', 'catch_up',
    'job:labels', 'due_ms', 'paused')
  local due = known[9] and '' or known[8]
  if not known[1] then
    redis.call('zrem', schedules_key, name)
  elseif due == '' or tonumber(due) > now then
    redis.call('zadd', schedules_key, due == '' and 'inf' or due, name)
  else
    reply[#reply + 1] = {name, unpack(known, 1, 7)}
  end
end
local head = redis.call('zrange', schedules_key, 0, 0, 'withscores')
if head[2] and head[2] ~= 'inf' then
  reply[3] = math.max(0, tonumber(head[2]) - now)
end
return reply
