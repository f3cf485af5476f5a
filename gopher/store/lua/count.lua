#!lua flags=allow-oom
-- Adds what a worker has measured to the figures of its queue: to those kept for good and to those of the minute.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the worker
-- ARGV[2] number of this call: the same again adds nothing, for a reply that was lost
-- ARGV[3] how long the figures of a minute, and the number of the call, are kept, s
-- ARGV[4..] field, how much to add, field, how much to add...
-- Returns: {OK}, or {ALREADY}: this call was carried out before
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
local worker, number, kept_seconds = ARGV[1], ARGV[2], ARGV[3]
local last_key, figures_key = base .. 'counted:' .. worker, base .. 'figures'
local minute_key = figures_key .. ':' .. math.floor(now_ms() / 60000)
if redis.call('get', last_key) == number then
  return {'ALREADY'}
end
-- The number comes first: a call that is cut short is better not repeated, for figures may lack a little but must not be made up.
redis.call('set', last_key, number, 'ex', kept_seconds)
for at = 4, #ARGV, 2 do
  redis.call('hincrby', minute_key, ARGV[at], ARGV[at + 1])
  if at == 4 then
    redis.call('expire', minute_key, kept_seconds)
  end
  redis.call('hincrby', figures_key, ARGV[at], ARGV[at + 1])
end
return {'OK'}
