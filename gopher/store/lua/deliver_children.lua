#!lua
-- Stores children of completed parents of other queues, as submit.lua stores jobs, unless the call comes too late: the process
-- may have slept since it saw them in the outbox, and what others have delivered meanwhile is remembered for a limited time.
-- KEYS[1] settings of the queue of the children
-- ARGV[1] until when the call counts, ms
-- ARGV[2] how long the ids of the children are remembered, ms
-- ARGV[3..] jobs, as submit.lua takes them
-- Returns: a list, an entry a job, as submit.lua has it, or {UNNAMED}; or {LATE} where nothing was stored
-- Moves: none -> scheduled | enqueued
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/submit.lua
local now = now_ms()
if now > tonumber(ARGV[1]) then
  return {'LATE'}
end
if not is_named(ARGV[3]) then
  return {'UNNAMED'}
end
local replies = submit_jobs(ARGV, 3, now, ARGV[2])
wake_workers()
publish_changes(now)
return replies
