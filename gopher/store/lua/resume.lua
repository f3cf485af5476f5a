#!lua flags=allow-oom
-- Lets claims from a queue go on.
-- KEYS[1] settings of the queue
-- Returns: {OK}
-- Moves: none
-- include: lib/queue.lua
redis.call('hdel', settings_key, 'paused')
redis.call('spublish', base .. 'control', 'wake')
return {'OK'}
