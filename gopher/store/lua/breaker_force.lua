#!lua flags=allow-oom
-- Holds a breaker open or closed whatever attempts say, or lets them decide again, from closed on.
-- KEYS[1] the breaker
-- ARGV[1] open, closed or '' to let attempts decide
-- Returns: {OK} or {NOT_FOUND}
-- Moves: none
-- include: lib/now.lua
-- include: lib/breaker.lua
local now = now_ms()

if redis.call('exists', key) == 0 then
  return {'NOT_FOUND'}
end
if ARGV[1] == '' then
  redis.call('hdel', key, 'forced')
else
  redis.call('hset', key, 'forced', ARGV[1])
end
local breaker = read_breaker(now)
if not breaker.forced then
  breaker.state, breaker.until_ms, breaker.is_proven, breaker.streak = 'closed', 0, false, {}
end
write_breaker(breaker, now)
return {'OK'}
