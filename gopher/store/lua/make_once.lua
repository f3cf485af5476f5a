#!lua flags=allow-oom
-- Keeps a value unless there is one already. In a full Redis too: what is kept this way is small, and lists and watches need it.
-- KEYS[1] where
-- ARGV[1] the value, in case there is none
-- Returns: {OK, the value that is kept}
-- Moves: none
redis.call('set', KEYS[1], ARGV[1], 'nx')
return {'OK', redis.call('get', KEYS[1])}
