#!lua flags=allow-oom
-- Removes a job that is not processing.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the job
-- Returns: {OK}, {NOT_FOUND} or {STATE, state}
-- Moves: any state but processing -> none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
local id = ARGV[1]
local job = read_job(id)

if not job then
  return {'NOT_FOUND'}
end
if job.state == 'processing' then
  return {'STATE', job.state}
end
release_unique(id, job.unique_key)
redis.call('unlink', job_key(id))
redis.call('zrem', deadlines_key, id)
redis.call('zrem', waiting_index(job), id)
if job.parked_by then
  redis.call('hincrby', counters_key, 'parked', -1)
end
note_change(id, 'deleted', job.attempt)
publish_changes(now_ms())
return {'OK'}
