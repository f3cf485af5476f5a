#!lua flags=allow-oom
-- Writes the outcomes of attempts, each fenced by its lease token.
-- KEYS[1] settings of the queue
-- ARGV[1..] an outcome: id of the job, token, and of a job that is completed, has no deadline, unique key or retention of its own and
--   counts under no limit: number of the attempt, result. Of any other: move (complete, retry, bury, snooze, release,
--   acknowledge_cancel), outcome, delay in ms, result or '' (of a failed attempt: its traceback or ''), failure or '', and last '', or
--   when it is completed and has children, the word children, how many of them are of this queue and stored at once, how many there
--   are, and of each, those first, id and entry
-- Returns: a list, an entry an outcome: the new state; ALREADY, settled before under this token; STALE_LEASE or NOT_FOUND,
--   nothing was changed but, by a release with the outcome lost, the crash that the attempt was charged with; then an entry a child that was refused: {its id, as submit.lua refuses it}
-- Moves: processing -> completed | retrying | failed | scheduled | enqueued | cancelled; of children: none -> scheduled | enqueued
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
-- include: lib/children.lua
local now = now_ms()
local replies, ended = {}, {}
local completed, expiry = {}, now + DEFAULT_RETENTION_MS
local child_ids, child_entries = {}, {}

local NEXT_STATE = {complete = 'completed', retry = 'retrying', bury = 'failed', snooze = 'scheduled', release = 'enqueued',
  acknowledge_cancel = 'cancelled'}
local AGAIN = {retrying = true, scheduled = true, enqueued = true}

local function wait_again(id, job, state, delay_ms, failure)
  local due = now + delay_ms
  announce_due(base .. state, due)
  redis.call('zadd', base .. state, due, id)
  if failure ~= '' then
    redis.call('hset', job_key(id), 'failure', failure)
  end
  if state == 'scheduled' then
    -- A snooze spends no attempt.
    redis.call('hset', job_key(id), 'state', state, 'run_ms', due, 'attempt', job.attempt - 1)
    note_change(id, state, job.attempt - 1, job.history)
  else
    redis.call('hset', job_key(id), 'state', state, 'run_ms', due)
    redis.call('hincrby', counters_key, 'retried_total', 1)
    note_change(id, state, job.attempt, job.history)
  end
end

local function give_back(id, job)
  redis.call('zadd', enqueued_key(job.priority), job.enqueued_ms or job.submitted_ms, id)
  redis.call('hset', job_key(id), 'state', 'enqueued', 'attempt', job.attempt - 1)
  note_waiting(job.type)
  note_change(id, 'enqueued', job.attempt - 1, job.history)
end

-- The way of nearly every job: as little is read and written as can be, and what can wait for the others is left to the end.
local function complete(id, token, attempt, result)
  local job = redis.call('hmget', job_key(id), 'state', 'token', 'history')
  if job[2] ~= token then
    return job[1] and 'STALE_LEASE' or 'NOT_FOUND'
  end
  if job[1] ~= 'processing' then
    return 'ALREADY'
  end
  redis.call('hset', job_key(id), 'state', 'completed', 'finished_ms', now, 'result', result)
  completed[#completed + 1] = expiry
  completed[#completed + 1] = id
  note_change(id, 'completed', attempt, job[3])
  ended[#ended + 1] = id
  return 'completed'
end

-- Takes back the crash that an attempt was charged with whose worker lives: it had only been cut off for longer than a lease.
local function take_back_crash(id, token)
  local charged = redis.call('hmget', job_key(id), 'charged', 'crashes', 'spent')
  if charged[1] == token and (tonumber(charged[2]) or 0) > 0 then
    -- Nor does it count among those that failed.
    redis.call('hset', job_key(id), 'charged', '', 'crashes', charged[2] - 1, 'spent', (tonumber(charged[3] or 0) or 0) + 1)
  end
end

local function settle(id, token, move, outcome, delay_ms, result, failure)
  local job = read_job(id)
  if not job then
    return 'NOT_FOUND'
  end
  if job.token ~= token then
    if outcome == 'lost' then
      take_back_crash(id, token)
    end
    return 'STALE_LEASE'
  end
  if job.state ~= 'processing' then
    return 'ALREADY'
  end
  local state = NEXT_STATE[move]
  if job.cancel_reason and AGAIN[state] then
    state = 'cancelled'
  end
  if outcome ~= 'succeeded' and move ~= 'release' and move ~= 'snooze' then
    keep_attempt(id, job.attempt, outcome, job, now, failure, result)
  end
  if job.family and AGAIN[state] then
    orphan(id, now)
  end
  if state == 'completed' then
    finish(id, state, now, job, 'result', result)
  elseif state == 'enqueued' then
    give_back(id, job)
  elseif AGAIN[state] then
    wait_again(id, job, state, tonumber(delay_ms), failure)
  elseif failure ~= '' then
    finish(id, state, now, job, 'failure', failure)
  else
    finish(id, state, now, job)
  end
  if job.deadline_ms and AGAIN[state] then
    announce_due(deadlines_key, tonumber(job.deadline_ms))
    redis.call('zadd', deadlines_key, job.deadline_ms, id)
  end
  if job.held then
    let_go(id, job.held, now)
  end
  ended[#ended + 1] = id
  return state
end

-- The children are kept before the outcome is written: cut short between the two, they are dropped; after it, somebody delivers them.
local function settle_parent(at)
  local direct, last = tonumber(ARGV[at + 8]), at + 9 + 2 * ARGV[at + 9]
  local job = redis.call('hmget', job_key(ARGV[at]), 'state', 'token')
  if job[1] == 'processing' and job[2] == ARGV[at + 1] then
    keep_children(at + 10, last)
    for child = at + 10, at + 9 + 2 * direct, 2 do
      child_ids[#child_ids + 1] = ARGV[child]
      child_entries[#child_entries + 1] = ARGV[child + 1]
    end
  end
  replies[#replies + 1] = settle(unpack(ARGV, at, at + 6))
  return last + 1
end

local at, last = 1, #ARGV
while at <= last do
  if not NEXT_STATE[ARGV[at + 2]] then
    replies[#replies + 1] = complete(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
    at = at + 4
  elseif ARGV[at + 7] == 'children' then
    at = settle_parent(at)
  else
    replies[#replies + 1] = settle(unpack(ARGV, at, at + 6))
    at = at + 8
  end
end
if #completed > 0 then
  redis.call('zadd', base .. 'completed', unpack(completed))
  redis.call('hincrby', counters_key, 'completed_total', #completed / 2)
end
if #child_ids > 0 then
  for _, refusal in ipairs(store_children(child_ids, child_entries, now)) do
    replies[#replies + 1] = refusal
  end
end
publish_changes(now)
-- Last: a job that is in two indexes is found and mended, one that is in none would be lost.
if #ended > 0 then
  redis.call('zrem', base .. 'processing', unpack(ended))
end
wake_workers()
return replies
