#!lua flags=allow-oom
-- Tells which children have still to be handed to their queues.
-- KEYS[1] settings of the queue
-- ARGV[1..] ids of children
-- Returns: {OK, now in ms, 1 or 0 an id}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
local reply = {'OK', now_ms()}

for place, id in ipairs(ARGV) do
  reply[2 + place] = redis.call('hexists', outbox_key, id)
end
return reply
