-- Ends a job that is not final, or asks its worker to: needs lib/final.lua.

-- The first one's reason and actor stand. Another one may shorten the grace, and tells the worker again, whose ear it may have missed.
local function ask_again(id, grace_ms)
  local before_ms = redis.call('hget', job_key(id), 'cancel_grace_ms')
  if before_ms and tonumber(before_ms) <= tonumber(grace_ms) then
    return before_ms
  end
  redis.call('hset', job_key(id), 'cancel_grace_ms', grace_ms)
  return grace_ms
end

local function cancel_job(id, job, reason, grace_ms, now, actor)
  if job.state == 'processing' then
    if job.cancel_reason then
      reason, grace_ms = job.cancel_reason, ask_again(id, grace_ms)
    else
      redis.call('hset', job_key(id), 'cancel_reason', reason, 'cancel_actor', actor, 'cancel_grace_ms', grace_ms)
    end
    redis.call('spublish', base .. 'control', 'cancel ' .. id .. ' ' .. job.token .. ' ' .. grace_ms .. ' ' .. reason)
    -- Told once, however often it is asked for.
    local note = job.cancel_reason and note_change_again or note_change
    note(id, 'processing', job.attempt, job.history, 'cancel_requested')
    return 'processing'
  end
  finish(id, 'cancelled', now, job, 'cancel_reason', reason, 'cancel_actor', actor)
  redis.call('zrem', waiting_index(job), id)
  return 'cancelled'
end
