#!lua flags=allow-oom
-- Says which types a worker has, so that its claims name them by their digest. In a full Redis too: a worker that starts there drains it.
-- KEYS[1] settings of the queue
-- ARGV[1] digest of the types
-- ARGV[2..] a type, or breaker:NAME of one that guards some of them
-- Returns: {OK}
-- Moves: none
-- include: lib/queue.lua
local key = types_key(ARGV[1])
for at = 2, #ARGV do
  redis.call('sadd', key, ARGV[at])
end
redis.call('pexpire', key, IDLE_MS)
return {'OK'}
