#!lua flags=allow-oom
-- Stops claims from a queue; jobs are still accepted.
-- KEYS[1] settings of the queue
-- Returns: {OK}
-- Moves: none
redis.call('hset', KEYS[1], 'paused', '1')
return {'OK'}
