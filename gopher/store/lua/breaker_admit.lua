#!lua flags=allow-oom
-- Lets jobs start that a breaker guards: gives permits, as far as it has any.
-- KEYS[1] the breaker
-- ARGV[1] how many permits at most
-- ARGV[2] what the permits' names begin with, never the same twice
-- ARGV[3] how long a permit stands unless it is given back, ms
-- Returns: {state, ms until which it is open or -1, 1 if no permits are needed, now in ms, ms at which one ends or -1, permits...}
-- Moves: none
-- include: lib/now.lua
-- include: lib/breaker.lua
local wanted, prefix, permit_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local now = now_ms()
local breaker = read_breaker(now)

if not breaker.forced and breaker.state == 'open' and now >= breaker.until_ms then
  breaker.state = 'half_open'
  write_breaker(breaker, now)
end
local reply = view(breaker, now)
reply[5] = -1
if is_free(breaker) or reply[1] == 'open' then
  return reply
end
local capacity = breaker.state == 'half_open' and breaker.probes or breaker.failures - #breaker.streak
local room = math.min(wanted, capacity - redis.call('zcard', permits_key))
for i = 1, room do
  reply[5 + i] = prefix .. i
  redis.call('zadd', permits_key, now + permit_ms, prefix .. i)
end
if room > 0 then
  keep_permits(now)
end
local first = redis.call('zrange', permits_key, 0, 0, 'withscores')
reply[5] = first[2] and tonumber(first[2]) or -1
return reply
