#!lua flags=allow-oom
-- Makes the secret of a namespace unless it has one. In a full Redis too: it is small, and lists and watches need it.
-- KEYS[1] the secret
-- ARGV[1] 32 random bytes, in case there is none
-- Returns: {OK, the secret}
-- Moves: none
redis.call('set', KEYS[1], ARGV[1], 'nx')
return {'OK', redis.call('get', KEYS[1])}
