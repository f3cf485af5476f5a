#!lua flags=allow-oom
-- Ends a bulk operation before it is done; what was done stays done.
-- KEYS[1] bulk operations that run
-- KEYS[2] record of the operation
-- ARGV[1] namespace and id of the operation, with a space in between
-- ARGV[2] cancelled or failed
-- ARGV[3] why, for people
-- Returns: {OK}, {NOT_FOUND} or {STATE, state}
-- Moves: none
-- include: lib/now.lua
local running_key, record_key, member, state, fault = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('hget', record_key, 'state')

if not known then
  return {'NOT_FOUND'}
end
if known == state then
  return {'OK'}
end
if known ~= 'running' then
  return {'STATE', known}
end
redis.call('hset', record_key, 'state', state, 'ended_ms', now_ms(), 'fault', fault)
redis.call('zrem', running_key, member)
return {'OK'}
