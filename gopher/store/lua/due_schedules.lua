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
local due = redis.call('zrangebyscore', schedules_key, '-inf', now, 'limit', 0, ARGV[1])
local reply = {'OK', now, -1}

for _, name in ipairs(due) do
  local known = redis.call('hmget', schedule_key(name), 'revision', 'next_ms', 'cron', 'time_zone', 'jitter_ms', 'catch_up',
    'job:labels')
  if known[1] then
    reply[#reply + 1] = {name, unpack(known, 1, 7)}
  else
    -- A create that was cut short has left it.
    redis.call('zrem', schedules_key, name)
  end
end
local head = redis.call('zrange', schedules_key, 0, 0, 'withscores')
if head[2] and head[2] ~= 'inf' then
  reply[3] = math.max(0, tonumber(head[2]) - now)
end
return reply
