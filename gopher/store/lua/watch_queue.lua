#!lua flags=allow-oom
-- Has all changes of a queue kept for a while, for those who follow it; to be called again before that is over.
-- KEYS[1] settings of the queue
-- ARGV[1] for how long, ms
-- Returns: {OK, number of the last entry, number of the oldest that is kept, or of the next where none is}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
local kept_ms = tonumber(ARGV[1])
local now = now_ms()
local changes_key = base .. 'changes'

-- A number that is left out tells who comes back with an older one that changes were missed.
if not is_watched(now) then
  redis.call('unlink', changes_key)
  redis.call('hincrby', counters_key, 'changes', 1)
end
redis.call('hset', settings_key, 'watched_until', string.format('%d', now + kept_ms))
local last = tonumber(redis.call('hget', counters_key, 'changes'))
local oldest = redis.call('xrange', changes_key, '-', '+', 'count', 1)[1]
return {'OK', last, oldest and tonumber(string.match(oldest[1], '^%d+')) or last + 1}
