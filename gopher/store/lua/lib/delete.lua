-- Removes a job that is not processing: needs lib/now.lua and lib/final.lua.
local function delete_job(id, job)
  if job.family then
    orphan(id, now_ms())
  end
  release_unique(id, job.unique_key)
  unlink_job(id, job.history)
  redis.call('zrem', deadlines_key, id)
  redis.call('zrem', waiting_index(job), id)
  if job.parked_by then
    redis.call('hincrby', counters_key, 'parked', -1)
  end
  note_change(id, 'deleted', job.attempt, nil, job.state)
end
