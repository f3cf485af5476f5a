#!lua flags=allow-oom
-- Keeps a worker's entry in the register, and drops those of workers that have fallen silent, as it meets them: a few of all, picked at
-- random. Readers of the register skip those that are left.
-- KEYS[1] workers of the namespace: id -> `expiry_ms heartbeat_ms description`, !id -> `expiry_ms grace_ms` of an order to drain
-- ARGV[1] id of the worker
-- ARGV[2] how long the entry stands without a further beat, ms; 0 removes it
-- ARGV[3] description, JSON
-- Returns: {OK}, or {DRAIN, grace in ms, -1 for its own}, as an operator has ordered
-- Moves: none
-- include: lib/now.lua
local id, life_ms, description = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now = now_ms()
-- Every worker looks at so many with each beat, so that each entry is looked at about so often between two beats of its own; chosen.
local LOOKED_AT = 10
local entries = redis.call('hrandfield', KEYS[1], LOOKED_AT, 'withvalues')

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
if order and tonumber(string.match(order, '^%d+')) >= now then
  return {'DRAIN', tonumber(string.match(order, '%S+$'))}
end
return {'OK'}
