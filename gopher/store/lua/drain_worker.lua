#!lua flags=allow-oom
-- Tells a worker that lives to drain: it finds the order at its next beat, if it has not heard it before.
-- KEYS[1] workers of the namespace: id -> `expiry_ms heartbeat_ms description`, !id -> `expiry_ms grace_ms` of an order to drain
-- ARGV[1] id of the worker
-- ARGV[2] how long it lets attempts finish, ms; -1 for as long as it was started with
-- ARGV[3] how long the order stands, ms
-- Returns: {OK, the worker's entry} or {NOT_FOUND}
-- Moves: none
-- include: lib/now.lua
local id, grace_ms, life_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = now_ms()
local entry = redis.call('hget', KEYS[1], id)

if not entry or tonumber(string.match(entry, '^%d+')) < now then
  return {'NOT_FOUND'}
end
redis.call('hset', KEYS[1], '!' .. id, string.format('%d %s', now + life_ms, grace_ms))
return {'OK', entry}
