#!lua flags=allow-oom
-- Notes what handlers declare of a breaker; how it stands is kept.
-- KEYS[1] the breaker
-- ARGV[1] failures in a row that trip it
-- ARGV[2] window, ms
-- ARGV[3] reset time, ms
-- ARGV[4] probes at once
-- ARGV[5] the types it guards, a space between
-- Returns: {state, ms until which it is open or -1, 1 if no permits are needed, now in ms}
-- Moves: none
-- include: lib/now.lua
-- include: lib/breaker.lua
local now = now_ms()

redis.call('hset', key, 'failures', ARGV[1], 'window_ms', ARGV[2], 'reset_ms', ARGV[3], 'probes', ARGV[4], 'types', ARGV[5])
return view(read_breaker(now), now)
