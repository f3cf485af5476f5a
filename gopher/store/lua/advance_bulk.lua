#!lua flags=allow-oom
-- Closes one queue of a bulk operation, adding what was done there, and goes on to the next or ends.
-- KEYS[1] bulk operations that run
-- KEYS[2] record of the operation
-- ARGV[1] namespace and id of the operation, with a space in between
-- ARGV[2] the queue that is done; the operation must be at it
-- ARGV[3] the next queue; '' after the last
-- ARGV[4] how long the record is kept, ms
-- ARGV[5..] name of a count, or what to add to it
-- Returns: {OK} or {STALE}
-- Moves: none
-- include: lib/now.lua
local running_key, record_key, member, queue, next_queue, kept_ms = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local known = redis.call('hmget', record_key, 'state', 'at_queue')

if known[1] ~= 'running' or known[2] ~= queue then
  return {'STALE'}
end
for i = 5, #ARGV, 2 do
  redis.call('hincrby', record_key, ARGV[i], ARGV[i + 1])
end
redis.call('hset', record_key, 'at_queue', next_queue)
if next_queue == '' then
  redis.call('hset', record_key, 'state', 'completed', 'ended_ms', now_ms())
  redis.call('zrem', running_key, member)
end
redis.call('pexpire', record_key, kept_ms)
return {'OK'}
