#!lua flags=allow-oom
-- Gives failed or cancelled jobs new attempts, and starts scheduled or retrying ones now.
-- KEYS[1] settings of the queue
-- ARGV[1..] id of a job
-- Returns: a list, an entry a job: {OK}, {NOT_FOUND}, {STATE, state} or {UNIQUE_HELD, unique key, id of the holder}
-- Moves: failed | cancelled | scheduled | retrying -> enqueued
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
-- include: lib/requeue.lua
local now = now_ms()
local replies = {}

for i, id in ipairs(ARGV) do
  replies[i] = requeue_job(id, now)
end
wake_workers()
publish_changes(now)
return replies
