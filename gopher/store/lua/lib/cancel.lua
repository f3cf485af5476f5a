-- Ends a job that is not final, or asks its worker to: needs lib/final.lua.
local function cancel_job(id, job, reason, grace_ms, now)
  if job.state == 'processing' then
    redis.call('hset', job_key(id), 'cancel_reason', reason, 'cancel_grace_ms', grace_ms)
    redis.call('spublish', base .. 'control', 'cancel ' .. id .. ' ' .. job.token .. ' ' .. grace_ms .. ' ' .. reason)
    note_change(id, 'processing', job.attempt, job.history, 'cancel_requested')
    return 'processing'
  end
  finish(id, 'cancelled', now, job, 'cancel_reason', reason)
  redis.call('zrem', waiting_index(job), id)
  return 'cancelled'
end
