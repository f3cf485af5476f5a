#!lua flags=allow-oom
-- Lets a worker on a stream begin a session, or go on in one: from here on its older sessions claim nothing more. Of the jobs that were claimed
-- for it, those that it holds keep their leases; the others have not reached it: they stay its own, each under a new token.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the worker
-- ARGV[2] number of the session
-- ARGV[3] lease, ms
-- ARGV[4..] a lease that the worker holds: id of the job, token
-- Returns: {REPLACED}, this is not the latest session, nothing was changed; or {OK, of the leases those that need attention, the jobs to
--   assign again}: {LOST, id}, {SETTLED, id} or {CANCEL, id, grace_ms, reason}; {id, token}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/numbers.lua
-- include: lib/assigned.lua
local worker, session, lease_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
local held, findings, leases, again = {}, {}, {}, {}

if last_session(worker) >= session then
  return {'REPLACED'}
end
for at = 4, #ARGV, 2 do
  local id, token = ARGV[at], ARGV[at + 1]
  local job = redis.call('hmget', job_key(id), 'state', 'token', 'worker', 'cancel_reason', 'cancel_grace_ms')
  if job[2] ~= token or job[3] ~= worker then
    findings[#findings + 1] = {'LOST', id}
  elseif job[1] ~= 'processing' then
    findings[#findings + 1] = {'SETTLED', id}
  else
    held[id] = token
    leases[#leases + 1] = id
    if job[4] then
      findings[#findings + 1] = {'CANCEL', id, tonumber(job[5]), job[4]}
    end
  end
end
local assigned = redis.call('hgetall', assigned_key(worker))
for at = 1, #assigned, 2 do
  local id, token = assigned[at], assigned[at + 1]
  if id ~= 'session' and not held[id] then
    local job = redis.call('hmget', job_key(id), 'state', 'token')
    local expiry = tonumber(redis.call('zscore', base .. 'processing', id) or 0)
    -- One whose lease has ended may have begun, and been given up for that: it is the reaper's.
    if job[1] == 'processing' and job[2] == token and expiry >= now then
      again[#again + 1] = {id, 0}
      leases[#leases + 1] = id
    end
  end
end

redis.call('del', assigned_key(worker))
if #again > 0 then
  local token = take_numbers(counters_key, 'token', #again, now)
  for at, entry in ipairs(again) do
    entry[2] = token + at
    redis.call('hset', job_key(entry[1]), 'token', digits(entry[2]), 'started_ms', now)
  end
end
for id, token in pairs(held) do
  redis.call('hset', assigned_key(worker), id, token)
end
note_assigned(worker, session, again, lease_ms)
for _, id in ipairs(leases) do
  redis.call('zadd', base .. 'processing', 'xx', now + lease_ms, id)
end
redis.call('spublish', base .. 'control', 'session ' .. worker .. ' ' .. ARGV[2])
return {'OK', findings, again}
