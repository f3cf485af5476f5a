#!lua flags=allow-oom
-- Makes job types known, declared now. In a full Redis too, so that a worker which starts there can drain it.
-- KEYS[1] the types known, a set
-- KEYS[2] when each was declared last, ms: a sorted set
-- ARGV[1] how many types may be known
-- ARGV[2..] types
-- Returns: {OK}, or {TOO_MANY_TYPES, the first for which there is no room} where nothing was added
-- Moves: none
-- include: lib/now.lua
local now = now_ms()
local room = ARGV[1] - redis.call('scard', KEYS[1])

for at = 2, #ARGV do
  if redis.call('sismember', KEYS[1], ARGV[at]) == 0 then
    room = room - 1
    if room < 0 then
      return {'TOO_MANY_TYPES', ARGV[at]}
    end
  end
end
for at = 2, #ARGV do
  redis.call('sadd', KEYS[1], ARGV[at])
  redis.call('zadd', KEYS[2], now, ARGV[at])
end
return {'OK'}
