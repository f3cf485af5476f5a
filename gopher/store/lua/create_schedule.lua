#!lua
-- Stores a new schedule.
-- KEYS[1] settings of the queue
-- ARGV[1] name of the schedule
-- ARGV[2] how many schedules a queue has at most
-- ARGV[3] when it fires next, ms
-- ARGV[4] when that is due, ms
-- ARGV[5..] field, value, field, value...
-- Returns: {OK}, {EXISTS} or {TOO_MANY}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/schedule.lua
local name = ARGV[1]

if redis.call('exists', schedule_key(name)) == 1 then
  return {'EXISTS'}
end
if redis.call('zcard', schedules_key) >= tonumber(ARGV[2]) then
  return {'TOO_MANY'}
end
local now = now_ms()
-- The index comes before the record: a name without a record is dropped, a record without an index would never fire.
put_due(name, ARGV[4])
redis.call('hset', schedule_key(name), 'created_ms', now, 'updated_ms', now, 'revision', new_revision(now), 'next_ms',
  ARGV[3], 'due_ms', ARGV[4], unpack(ARGV, 5))
return {'OK'}
