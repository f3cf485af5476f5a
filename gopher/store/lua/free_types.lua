#!lua flags=allow-oom
-- Forgets types that were declared last long ago, some a call.
-- KEYS[1] the types known, a set
-- KEYS[2] when each was declared last, ms: a sorted set
-- ARGV[1] how long a type is kept, ms
-- Returns: {OK, a type that was forgotten...}
-- Moves: none
-- include: lib/now.lua
local MOST = 1000
local now = now_ms()

-- A worker of an older version notes no moment: what it has made known counts from now on.
if redis.call('scard', KEYS[1]) > redis.call('zcard', KEYS[2]) then
  local unnoted = redis.call('zdiff', 2, KEYS[1], KEYS[2])
  for at = 1, math.min(#unnoted, MOST) do
    redis.call('zadd', KEYS[2], now, unnoted[at])
  end
end
local freed = redis.call('zrange', KEYS[2], '-inf', now - ARGV[1], 'byscore', 'limit', 0, MOST)
if #freed > 0 then
  redis.call('srem', KEYS[1], unpack(freed))
  redis.call('zrem', KEYS[2], unpack(freed))
end
return {'OK', unpack(freed)}
