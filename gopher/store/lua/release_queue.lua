#!lua flags=allow-oom
-- Removes what is left of a queue that has held nothing for a while; the next job names it again.
-- KEYS[1] settings of the queue
-- ARGV[1] for how long, ms
-- Returns: {RELEASED} or {HELD}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/holds.lua
local idle_ms = tonumber(ARGV[1])
local now = now_ms()

if holds_anything(now) then
  return {'HELD'}
end
-- Jobs that have come and gone meanwhile show in the count.
local submitted = redis.call('hget', counters_key, 'submitted_total') or '0'
local since, counted = string.match(redis.call('hget', settings_key, 'idle_since') or '', '^(%d+) (%d+)$')
if counted ~= submitted then
  redis.call('hset', settings_key, 'idle_since', string.format('%d %s', now, submitted))
  return {'HELD'}
end
if now - since < idle_ms then
  return {'HELD'}
end
redis.call('unlink', settings_key, counters_key, base .. 'figures', base .. 'limits')
return {'RELEASED'}
