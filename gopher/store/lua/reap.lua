#!lua flags=allow-oom
-- Takes jobs from workers whose lease has ended, ends what was attached to a client that has vanished, removes final jobs whose
-- retention has ended, and forgets what was left to workers with a type and holds nothing.
-- KEYS[1] settings of the queue
-- ARGV[1] how many of each kind at most
-- ARGV[2] the crash that ends a job
-- Returns: {OK, leases reaped, jobs removed, {ids of the jobs that have failed}, ids of the jobs taken back...}
-- Moves: processing -> enqueued | failed (CRASH_LOOP) | cancelled; of what was attached, as cancel.lua; completed | failed | cancelled -> none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
-- include: lib/cancel.lua
-- include: lib/numbers.lua
local limit, max_crashes = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()
local LOST = '{"reason":"WORKER_LOST","message":"the lease ended with no outcome: the worker died or was cut off","code":14}'
local CRASH_LOOP = '{"reason":"CRASH_LOOP","message":"every worker that ran the job was lost with it","code":10}'
local processing_key, attached_key = base .. 'processing', base .. 'attached'
local VANISHED_GRACE_MS = 5000
local failed = {}
local reply = {'OK', 0, 0, failed}
local FINAL = {completed = true, failed = true, cancelled = true}

local function take_back(id, job)
  local crashes = (job.crashes or 0) + 1
  -- The last crash is charged only where the handler may have begun: the reply to the claim may never have arrived.
  local is_charged = crashes < max_crashes or redis.call('hget', job_key(id), 'begun') == job.token
  crashes = is_charged and crashes or crashes - 1
  -- A token that nobody has: what the lost worker may still write is stale, not settled before.
  local token = digits(take_numbers(counters_key, 'token', 1, now) + 1)
  keep_attempt(id, job.attempt, 'lost', job, now, LOST)
  if job.cancel_reason then
    finish(id, 'cancelled', now, job, 'token', token, 'crashes', crashes)
  elseif crashes >= max_crashes then
    finish(id, 'failed', now, job, 'token', token, 'crashes', crashes, 'failure', CRASH_LOOP)
    failed[#failed + 1] = id
  else
    if job.family then
      orphan(id, now)
    end
    redis.call('zadd', enqueued_key(job.priority), job.enqueued_ms or job.submitted_ms or now, id)
    -- Which attempt was charged: its worker may have been cut off alone, and says so when it is back.
    redis.call('hset', job_key(id), 'state', 'enqueued', 'token', token, 'crashes', crashes, 'failure', LOST, 'charged',
      is_charged and job.token or '')
    if job.deadline_ms then
      announce_due(deadlines_key, tonumber(job.deadline_ms))
      redis.call('zadd', deadlines_key, job.deadline_ms, id)
    end
    note_waiting(job.type)
    note_change(id, 'enqueued', job.attempt, job.history)
  end
  if job.held then
    let_go(id, job.held, now)
  end
  reply[#reply + 1] = id
end

local ended = redis.call('zrangebyscore', processing_key, '-inf', '(' .. string.format('%d', now), 'limit', 0, limit)
for _, id in ipairs(ended) do
  local job = read_job(id)
  if job and job.state == 'processing' then
    take_back(id, job)
  elseif job then
    -- A settle that was cut short has left it here, and perhaps told nobody.
    if FINAL[job.state] then
      redis.call('zadd', base .. job.state, 'nx', retention_end(job.state, now, job.retention_ms), id)
    end
    retell(id, job)
  end
end
-- What was attached to a client that has vanished; before it is let go of, so that one cut short is ended twice rather than never.
local vanished = redis.call('zrangebyscore', attached_key, '-inf', '(' .. string.format('%d', now), 'limit', 0, limit)
for _, id in ipairs(vanished) do
  local job = read_job(id)
  if job and not FINAL[job.state] and not job.cancel_reason then
    cancel_job(id, job, 'its client has vanished', VANISHED_GRACE_MS, now, 'gopher')
  elseif job then
    retell(id, job)
  elseif redis.call('exists', family_key(id)) == 1 then
    orphan(id, now)
  end
end
publish_changes(now)
if #ended > 0 then
  redis.call('zrem', processing_key, unpack(ended))
  reply[2] = #ended
end
if #vanished > 0 then
  redis.call('zrem', attached_key, unpack(vanished))
end
for _, state in ipairs({'completed', 'failed', 'cancelled'}) do
  local over = redis.call('zrangebyscore', base .. state, '-inf', now, 'limit', 0, limit)
  for _, id in ipairs(over) do
    -- A job that a script cut short has left in an old index is not removed, only the index entry.
    local job = redis.call('hmget', job_key(id), 'state', 'history')
    if job[1] == state then
      unlink_job(id, job[2])
    end
  end
  if #over > 0 then
    redis.call('zrem', base .. state, unpack(over))
    reply[3] = reply[3] + #over
  end
end
forget_empty(now)
wake_workers()
return reply
