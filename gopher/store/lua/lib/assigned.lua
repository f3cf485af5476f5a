-- What was claimed for a worker on a stream and is not settled: needs lib/queue.lua. A hash, id of the job -> token,
-- and the session that claims, its number; those of a worker grow. It outlives the leases, and may hold ids of jobs that have ended since.
-- include: lib/numbers.lua
local LEASES_KEPT = 2

local function assigned_key(worker)
  return base .. 'assigned:' .. worker
end

local function last_session(worker)
  return tonumber(redis.call('hget', assigned_key(worker), 'session') or 0)
end

local function keep_assigned(worker, lease_ms)
  redis.call('pexpire', assigned_key(worker), LEASES_KEPT * lease_ms)
end

-- Notes what a session has claimed: a list of {id, token, ...}.
local function note_assigned(worker, session, claimed, lease_ms)
  local pairs_of = {'session', session}
  for _, entry in ipairs(claimed) do
    pairs_of[#pairs_of + 1] = entry[1]
    pairs_of[#pairs_of + 1] = digits(entry[2])
  end
  redis.call('hset', assigned_key(worker), unpack(pairs_of))
  keep_assigned(worker, lease_ms)
end
