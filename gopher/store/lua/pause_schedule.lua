#!lua flags=allow-oom
-- Keeps a schedule from firing.
-- KEYS[1] settings of the queue
-- ARGV[1] name of the schedule
-- Returns: {OK} or {NOT_FOUND}
-- Moves: none
-- include: lib/queue.lua
-- include: lib/schedule.lua
local name = ARGV[1]

if redis.call('exists', schedule_key(name)) == 0 then
  return {'NOT_FOUND'}
end
redis.call('hset', schedule_key(name), 'paused', 1)
put_due(name, '')
return {'OK'}
