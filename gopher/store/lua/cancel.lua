#!lua flags=allow-oom
-- Ends a waiting job as cancelled, or marks a processing one and tells its worker.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the job
-- ARGV[2] reason, for people
-- ARGV[3] grace of the handler's cleanup, ms
-- Returns: {OK, state after}, {NOT_FOUND} or {TERMINAL, state}
-- Moves: scheduled | enqueued | retrying -> cancelled; processing -> processing
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
local id, reason, grace_ms = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
local job = read_job(id)

if not job then
  return {'NOT_FOUND'}
end
if job.state == 'cancelled' then
  return {'OK', 'cancelled'}
end
if job.state == 'completed' or job.state == 'failed' then
  return {'TERMINAL', job.state}
end
if job.state == 'processing' then
  redis.call('hset', job_key(id), 'cancel_reason', reason, 'cancel_grace_ms', grace_ms)
  redis.call('spublish', base .. 'control', 'cancel ' .. id .. ' ' .. job.token .. ' ' .. grace_ms .. ' ' .. reason)
  note_change(id, 'processing', job.attempt, 'cancel')
  publish_changes(now)
  return {'OK', 'processing'}
end
finish(id, 'cancelled', now, job, 'cancel_reason', reason)
redis.call('zrem', waiting_index(job), id)
publish_changes(now)
return {'OK', 'cancelled'}
