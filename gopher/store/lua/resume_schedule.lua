#!lua flags=allow-oom
-- Lets a paused schedule fire again, from its next time on; one that is not paused stays as it is.
-- KEYS[1] settings of the queue
-- ARGV[1] name of the schedule
-- ARGV[2] the revision that the next time was worked out for
-- ARGV[3] when it fires next, ms; or empty for never
-- ARGV[4] when that is due, ms; or empty
-- Returns: {OK}, {NOT_FOUND} or {STALE}, it was changed meanwhile
-- Moves: none
-- include: lib/queue.lua
-- include: lib/schedule.lua
local name = ARGV[1]
local known = redis.call('hmget', schedule_key(name), 'revision', 'paused')

if not known[1] then
  return {'NOT_FOUND'}
end
if not known[2] then
  return {'OK'}
end
if known[1] ~= ARGV[2] then
  return {'STALE'}
end
put_due(name, ARGV[4])
redis.call('hset', schedule_key(name), 'next_ms', ARGV[3], 'due_ms', ARGV[4])
redis.call('hdel', schedule_key(name), 'paused')
return {'OK'}
