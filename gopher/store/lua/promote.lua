#!lua flags=allow-oom
-- Enqueues jobs whose run time has come and fails waiting ones whose deadline has passed.
-- KEYS[1] settings of the queue
-- ARGV[1] how many of each kind at most
-- Returns: {OK, how many were moved, ms until the next is due or -1, now in ms, ids of the jobs that have failed...}
-- Moves: scheduled | retrying -> enqueued; scheduled | enqueued | retrying -> failed (EXPIRED)
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
local limit = tonumber(ARGV[1])
local now = now_ms()
local moved = 0
local failed = {}
-- Ids to remove, by index: when all is told, so that who finds one there again tells what this call has not.
local left = {}
local EXPIRED = '{"reason":"EXPIRED","message":"the deadline passed before a worker took the job","code":4}'

local function leave(index, id)
  left[index] = left[index] or {}
  table.insert(left[index], id)
end

-- Deadlines first: a job that is both due and too late is not run.
for _, id in ipairs(redis.call('zrangebyscore', deadlines_key, '-inf', now, 'limit', 0, limit)) do
  local job = read_job(id)
  if job and (job.state == 'enqueued' or job.state == 'scheduled' or job.state == 'retrying') then
    finish(id, 'failed', now, job, 'failure', EXPIRED)
    failed[#failed + 1] = id
    leave(waiting_index(job), id)
  else
    retell(id, job)
    leave(deadlines_key, id)
  end
  moved = moved + 1
end
for _, state in ipairs({'scheduled', 'retrying'}) do
  local due = redis.call('zrangebyscore', base .. state, '-inf', now, 'limit', 0, limit)
  for _, id in ipairs(due) do
    local job = read_job(id)
    if job and job.state == state then
      redis.call('zadd', enqueued_key(job.priority), now, id)
      redis.call('hset', job_key(id), 'state', 'enqueued', 'enqueued_ms', now)
      note_waiting(job.type)
      note_change(id, 'enqueued', job.attempt, job.history)
    else
      retell(id, job)
    end
    leave(base .. state, id)
  end
  moved = moved + #due
end
publish_changes(now)
for index, ids in pairs(left) do
  redis.call('zrem', index, unpack(ids))
end
-- Jobs of a limit that is to be asked again are not moved: who claims asks, and takes what it lets start.
for _, by in ipairs(redis.call('zrangebyscore', parked_key, '-inf', now, 'limit', 0, limit)) do
  note_waiting(rung_for(by))
end
wake_workers()

local next_ms = -1
for _, index in ipairs({base .. 'scheduled', base .. 'retrying', deadlines_key, parked_key}) do
  -- What is due already was moved, or there was more of it than a call moves; of the limits, claims were told.
  local from = index == parked_key and '(' .. string.format('%d', now) or '-inf'
  local head = redis.call('zrangebyscore', index, from, '(inf', 'withscores', 'limit', 0, 1)
  if head[2] then
    local wait = math.max(0, tonumber(head[2]) - now)
    if next_ms < 0 or wait < next_ms then
      next_ms = wait
    end
  end
end
return {'OK', moved, next_ms, now, unpack(failed)}
