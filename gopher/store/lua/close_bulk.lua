#!lua flags=allow-oom
-- Ends the work of a bulk operation in a queue: a step that comes late, of a server that was overtaken, is refused from now on.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the operation
-- ARGV[2] how long the progress is kept, ms
-- Returns: {OK}
-- Moves: none
-- include: lib/queue.lua
local progress_key = base .. 'bulk:' .. ARGV[1]

redis.call('hset', progress_key, 'steps', 'closed')
redis.call('pexpire', progress_key, ARGV[2])
return {'OK'}
