#!lua flags=allow-oom
-- Keeps what running attempts have said, each in its job's history, and tells their watchers.
-- KEYS[1] settings of the queue
-- ARGV[1..] a saying: id of the job, token, number of the saying in its attempt, from 1; kind (progress, log, output, child, notice),
--   of progress how far, 0 to 1, else ''; what is told beside it
-- Returns: a list, an entry a saying: OK, it is kept, now or by an earlier call; STALE_LEASE or NOT_FOUND, nothing was changed
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
local now = now_ms()
local replies, jobs, heard = {}, {}, {}

local function job_of(id)
  if not jobs[id] then
    local values = redis.call('hmget', job_key(id), 'state', 'token', 'attempt', 'history')
    jobs[id] = {state = values[1], token = values[2], attempt = values[3] or '0', history = values[4]}
  end
  return jobs[id]
end

local function say(id, token, number, kind, progress, detail)
  local job = job_of(id)
  if not job.state then
    return 'NOT_FOUND'
  end
  if job.state ~= 'processing' or job.token ~= token then
    return 'STALE_LEASE'
  end
  if kind == 'progress' then
    -- Opened before, or the history would begin with what is only told now.
    history_of(id, job.history, now)
    redis.call('hset', job_key(id), 'progress', progress, 'progress_message', detail)
  end
  told[#told + 1] = {id = id, kind = kind, state = 'processing', attempt = job.attempt, is_open = job.history, said = tonumber(number),
    progress = progress ~= '' and progress or nil, detail = detail}
  if not heard[id] then
    heard[id] = true
    note_change(id, 'processing', job.attempt, nil, 'said')
  end
  return 'OK'
end

for at = 1, #ARGV, 6 do
  replies[#replies + 1] = say(unpack(ARGV, at, at + 5))
end
publish_changes(now)
return replies
