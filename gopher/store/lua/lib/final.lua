-- Ends a job: needs lib/queue.lua. Dead letters are kept for 30 days (chosen: a month's holiday), the rest as their job says.
-- include: lib/family.lua
-- include: lib/parked.lua
-- include: lib/unique.lua
local FAILED_RETENTION_MS = 2592000000
local DEFAULT_RETENTION_MS = 3600000
local HISTORY_LENGTH = 20
-- Chosen: by default a job has no more attempts; of each of the earlier ones its failure is kept.
local TRACEBACKS_KEPT = 4

local function retention_end(state, now, retention)
  if state == 'failed' then
    return now + FAILED_RETENTION_MS
  end
  return now + (tonumber(retention or false) or DEFAULT_RETENTION_MS)
end

-- Writes the final state and its index; the caller has still to remove the id from the index it came from.
local function finish(id, state, now, job, ...)
  -- First: cut short after the state, nobody would look after the children.
  if job.family then
    orphan(id, now)
  end
  redis.call('zadd', base .. state, retention_end(state, now, job.retention_ms), id)
  redis.call('hset', job_key(id), 'state', state, 'finished_ms', now, ...)
  if job.deadline_ms then
    redis.call('zrem', deadlines_key, id)
  end
  if job.parked_by then
    note_unparked(id)
  end
  release_unique(id, job.unique_key)
  redis.call('hincrby', counters_key, state .. '_total', 1)
  note_change(id, state, job.attempt, job.history)
end

-- Keeps the record of an attempt that did not succeed: `outcome worker started finished failure`, and beside it its traceback.
local function keep_attempt(id, number, outcome, job, now, failure, traceback)
  redis.call('hset', job_key(id), 'attempt:' .. number,
    table.concat({outcome, job.worker or '-', job.started_ms or '0', now, failure or ''}, ' '))
  if traceback and traceback ~= '' then
    redis.call('hset', job_key(id), 'traceback:' .. number, traceback)
  end
  if tonumber(number) > TRACEBACKS_KEPT then
    redis.call('hdel', job_key(id), 'traceback:' .. (number - TRACEBACKS_KEPT))
  end
  if tonumber(number) > HISTORY_LENGTH then
    redis.call('hdel', job_key(id), 'attempt:' .. (number - HISTORY_LENGTH))
  end
end

local JOB_FIELDS = {'state', 'type', 'priority', 'token', 'attempt', 'crashes', 'worker', 'started_ms', 'submitted_ms',
  'enqueued_ms', 'deadline_ms', 'retention_ms', 'unique_key', 'cancel_reason', 'parked_by', 'held', 'family',
  'history'}

local NUMBERS = {attempt = true, crashes = true, started_ms = true, submitted_ms = true, enqueued_ms = true, deadline_ms = true,
  retention_ms = true}
local PRIORITIES = {high = true, normal = true, low = true}

-- Reads what the moves need; nil when there is no such job. A damaged record must not stop a sweep over many: a number that is none
-- counts as unset, as does a priority that has no line.
local function read_job(id)
  local values = redis.call('hmget', job_key(id), unpack(JOB_FIELDS))
  if not values[1] then
    return nil
  end
  local job = {}
  for i, name in ipairs(JOB_FIELDS) do
    if values[i] and not (NUMBERS[name] and not tonumber(values[i])) then
      job[name] = values[i]
    end
  end
  job.attempt = job.attempt or '0'
  job.priority = PRIORITIES[job.priority] and job.priority or nil
  return job
end

-- The index that a waiting job stands in.
local function waiting_index(job)
  if job.state == 'enqueued' then
    return job.parked_by and parked_index(job.parked_by, job.priority) or enqueued_key(job.priority)
  end
  return base .. job.state
end

-- Removes the record of a job, and its history where it has one.
local function unlink_job(id, history)
  if history then
    redis.call('unlink', job_key(id), history_key(id))
  else
    redis.call('unlink', job_key(id))
  end
end

-- Tells where a job stands once more: a script that moved it may have been cut short before it did. What is known is not told again.
local function retell(id, job)
  if job and job.history then
    note_change_again(id, job.state, job.attempt, job.history)
  end
end
