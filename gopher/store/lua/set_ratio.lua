#!lua flags=allow-oom
-- Sets how the claims of a queue are shared among its priorities.
-- KEYS[1] settings of the queue
-- ARGV[1] priority cycle, a letter a claim: h, n or l
-- Returns: {OK}
-- Moves: none
redis.call('hset', KEYS[1], 'cycle', ARGV[1])
return {'OK'}
