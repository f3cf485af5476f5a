#!lua flags=allow-oom
-- Moves the expiry of leases forward.
-- KEYS[1] settings of the queue
-- ARGV[1] lease, ms
-- ARGV[2..] a lease: id of the job, token
-- Returns: a list, an entry a job that needs attention: {LOST, id} or {CANCEL, id, grace_ms, reason}; the others were extended
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
local lease_ms = tonumber(ARGV[1])
local expiry = now_ms() + lease_ms
local replies, leases = {}, {}

for at = 2, #ARGV, 2 do
  local id, token = ARGV[at], ARGV[at + 1]
  local job = redis.call('hmget', job_key(id), 'state', 'token', 'cancel_reason', 'cancel_grace_ms')
  if job[1] ~= 'processing' or job[2] ~= token then
    replies[#replies + 1] = {'LOST', id}
  else
    leases[#leases + 1] = expiry
    leases[#leases + 1] = id
    if job[3] then
      replies[#replies + 1] = {'CANCEL', id, tonumber(job[4]), job[3]}
    end
  end
end
if #leases > 0 then
  redis.call('zadd', base .. 'processing', 'xx', unpack(leases))
end
return replies
