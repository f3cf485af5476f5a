#!lua flags=allow-oom
-- Ends a job whose client has left the call that it was attached to, unless the client has come back in another one.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the job
-- ARGV[2] id of the call
-- ARGV[3] reason, for people
-- ARGV[4] grace of the handler's cleanup, ms
-- Returns: {OK, state after}, {TAKEN_OVER} or {NOT_FOUND}
-- Moves: as cancel.lua
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
-- include: lib/cancel.lua
local id, call_id, reason, grace_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = now_ms()
local job = read_job(id)
local after = job and job.state
local FINAL = {completed = true, failed = true, cancelled = true}

if not job then
  return {'NOT_FOUND'}
end
if redis.call('hget', job_key(id), 'attached_to') ~= call_id then
  return {'TAKEN_OVER'}
end
if not FINAL[after] then
  after = cancel_job(id, job, reason, grace_ms, now, 'gopher')
end
redis.call('zrem', base .. 'attached', id)
publish_changes(now)
return {'OK', after}
