#!lua flags=allow-oom
-- Keeps the lease on a bulk operation, if it still runs and nobody else has taken it up.
-- KEYS[1] bulk operations that run
-- KEYS[2] record of the operation
-- ARGV[1] namespace and id of the operation, with a space in between
-- ARGV[2] token of the lease
-- ARGV[3] lease from now on, ms; 0 gives it up
-- Returns: {OK} or {LOST}
-- Moves: none
-- include: lib/now.lua
local running_key, record_key, member, token, lease_ms = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
local known = redis.call('hmget', record_key, 'state', 'token')

if known[1] ~= 'running' or known[2] ~= token then
  return {'LOST'}
end
redis.call('zadd', running_key, now_ms() + lease_ms, member)
return {'OK'}
