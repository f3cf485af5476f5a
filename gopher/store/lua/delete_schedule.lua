#!lua flags=allow-oom
-- Removes a schedule; the jobs it made stay.
-- KEYS[1] settings of the queue
-- ARGV[1] name of the schedule
-- Returns: {OK} or {NOT_FOUND}
-- Moves: none
-- include: lib/queue.lua
-- include: lib/schedule.lua
local removed = redis.call('del', schedule_key(ARGV[1]))
redis.call('zrem', schedules_key, ARGV[1])
return {removed == 1 and 'OK' or 'NOT_FOUND'}
