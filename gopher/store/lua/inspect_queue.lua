#!lua flags=no-writes,allow-oom
-- Tells whether work of a queue is overdue, so that no worker looks after it, and whether the queue holds anything.
-- KEYS[1] settings of the queue
-- ARGV[1] how long after its time work is overdue, ms
-- Returns: {OK, 1 if work is overdue, 1 if the queue holds anything}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/holds.lua
local now = now_ms()

return {'OK', has_overdue(now - ARGV[1]) and 1 or 0, holds_anything(now) and 1 or 0}
