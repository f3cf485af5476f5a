#!lua flags=allow-oom
-- Notes the number of a queue where its jobs are: a submit then finds out, at no cost, that the name has been lost or freed.
-- KEYS[1] settings of the queue
-- ARGV[1] the number, as the ids of its jobs end in it
-- Returns: {OK}
-- Moves: none
redis.call('hset', KEYS[1], 'number', ARGV[1])
return {'OK'}
