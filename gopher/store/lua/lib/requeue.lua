-- Gives a job new attempts: needs lib/final.lua; the caller has still to wake the workers and to publish the changes.
local REQUEUED = {failed = true, cancelled = true}
local STARTED = {scheduled = true, retrying = true}

local function requeue_job(id, now)
  local job = read_job(id)
  if not job then
    return {'NOT_FOUND'}
  end
  if not REQUEUED[job.state] and not STARTED[job.state] then
    return {'STATE', job.state}
  end
  if REQUEUED[job.state] and job.unique_key then
    local holder = unique_holder(job.unique_key)
    if holder and holder ~= id then
      return {'UNIQUE_HELD', job.unique_key, holder}
    end
    redis.call('set', unique_index(job.unique_key), id)
  end
  redis.call('zadd', enqueued_key(job.priority), now, id)
  if REQUEUED[job.state] then
    -- The deadline of the first generation does not bind the next: the operator wants it run.
    redis.call('hdel', job_key(id), 'finished_ms', 'failure', 'cancel_reason', 'cancel_actor', 'cancel_grace_ms',
      'deadline_ms')
    redis.call('hset', job_key(id), 'spent', job.attempt, 'crashes', 0)
    redis.call('hincrby', job_key(id), 'generation', 1)
  end
  redis.call('hset', job_key(id), 'state', 'enqueued', 'enqueued_ms', now)
  redis.call('zrem', base .. job.state, id)
  note_waiting(job.type)
  note_change(id, 'enqueued', job.attempt, job.history)
  return {'OK'}
end
