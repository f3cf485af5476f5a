#!lua flags=allow-oom
-- Keeps a worker's entry in the register, and drops those of workers that have fallen silent.
-- KEYS[1] workers of the namespace: id -> `expiry_ms heartbeat_ms description`, !id -> `expiry_ms grace_ms` of an order to drain
-- ARGV[1] id of the worker
-- ARGV[2] how long the entry stands without a further beat, ms; 0 removes it
-- ARGV[3] description, JSON
-- Returns: {OK}, or {DRAIN, grace in ms, -1 for its own}, as an operator has ordered
-- Moves: none
-- include: lib/now.lua
local id, life_ms, description = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now = now_ms()
local entries = redis.call('hgetall', KEYS[1])

for i = 1, #entries, 2 do
  if tonumber(string.match(entries[i + 1], '^%d+')) < now then
    redis.call('hdel', KEYS[1], entries[i])
  end
end
if life_ms > 0 then
  redis.call('hset', KEYS[1], id, string.format('%d %d %s', now + life_ms, now, description))
else
  redis.call('hdel', KEYS[1], id, '!' .. id)
end
local order = redis.call('hget', KEYS[1], '!' .. id)
if order then
  return {'DRAIN', tonumber(string.match(order, '%S+$'))}
end
return {'OK'}
