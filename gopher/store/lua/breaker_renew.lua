#!lua flags=allow-oom
-- Has permits stand for longer, as far as they stand still.
-- KEYS[1] the breaker
-- ARGV[1] for how long from now, ms
-- ARGV[2..] a permit
-- Returns: {OK}
-- Moves: none
-- include: lib/now.lua
-- include: lib/breaker.lua
local permit_ms = tonumber(ARGV[1])
local now = now_ms()

-- One that has ended may have been given to another.
redis.call('zremrangebyscore', permits_key, '-inf', now)
for i = 2, #ARGV do
  redis.call('zadd', permits_key, 'xx', now + permit_ms, ARGV[i])
end
keep_permits(now)
return {'OK'}
