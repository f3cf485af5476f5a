#!lua flags=allow-oom
-- Takes one step of a bulk operation in a queue: moves some jobs, counts them, and keeps where the next step goes on.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the operation
-- ARGV[2] how many steps were taken here before; else it is another's step, or one taken already
-- ARGV[3] where the next step goes on
-- ARGV[4] cancel, retry or delete
-- ARGV[5] state that the jobs must be in
-- ARGV[6] reason of a cancel, for people
-- ARGV[7] grace of a cancelled handler's cleanup, ms
-- ARGV[8] how many records were looked at
-- ARGV[9] how long the progress is kept, ms
-- ARGV[10..] id of a job
-- Returns: {OK, jobs done here so far} or {STALE}
-- Moves: cancel: as cancel.lua; retry: as requeue.lua; delete: as delete.lua
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
-- include: lib/cancel.lua
-- include: lib/requeue.lua
-- include: lib/delete.lua
local progress_key, steps, cursor, kind, state = base .. 'bulk:' .. ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local reason, grace_ms, scanned, kept_ms = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local now = now_ms()
local done, skipped, failed = 0, 0, 0

if (redis.call('hget', progress_key, 'steps') or '0') ~= steps then
  return {'STALE'}
end
for i = 10, #ARGV do
  local id = ARGV[i]
  local job = read_job(id)
  if not job or job.state ~= state or (state == 'processing' and (kind ~= 'cancel' or job.cancel_reason)) then
    retell(id, job)
    skipped = skipped + 1
  elseif kind == 'cancel' then
    cancel_job(id, job, reason, grace_ms, now, 'bulk ' .. ARGV[1])
    done = done + 1
  elseif kind == 'delete' then
    delete_job(id, job)
    done = done + 1
  elseif requeue_job(id, now)[1] == 'OK' then
    done = done + 1
  else
    failed = failed + 1
  end
end
publish_changes(now)
redis.call('hset', progress_key, 'steps', steps + 1, 'cursor', cursor)
redis.call('hincrby', progress_key, 'scanned', scanned)
redis.call('hincrby', progress_key, 'skipped', skipped)
redis.call('hincrby', progress_key, 'failed', failed)
local total = redis.call('hincrby', progress_key, 'done', done)
redis.call('pexpire', progress_key, kept_ms)
wake_workers()
return {'OK', total}
