#!lua flags=allow-oom
-- Ends a waiting job as cancelled, or marks a processing one and tells its worker.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the job
-- ARGV[2] reason, for people
-- ARGV[3] grace of the handler's cleanup, ms
-- ARGV[4] who asks, for people
-- Returns: {OK, state after}, {NOT_FOUND} or {TERMINAL, state}
-- Moves: scheduled | enqueued | retrying -> cancelled; processing -> processing
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
-- include: lib/cancel.lua
local id, reason, grace_ms, actor = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = now_ms()
local job = read_job(id)

if not job then
  return {'NOT_FOUND'}
end
if job.state == 'cancelled' then
  retell(id, job)
  publish_changes(now)
  return {'OK', 'cancelled'}
end
if job.state == 'completed' or job.state == 'failed' then
  return {'TERMINAL', job.state}
end
local after = cancel_job(id, job, reason, grace_ms, now, actor)
publish_changes(now)
return {'OK', after}
