#!lua
-- Stores new jobs, each scheduled or enqueued at once.
-- KEYS[1] settings of the queue
-- ARGV[1] how long a request id is remembered, ms
-- ARGV[2..] a job: id, priority, run_ms or '', delay_ms or '', deadline_ms or '', unique_key or '', request_id or '',
--   fingerprint of the body or '', count of what follows, field, value, field, value...
-- Returns: a list, an entry a job: {OK, id, state}, {DUPLICATE, id of the first, state}, {REQUEST_ID_CONFLICT, id of the first}
--   or {UNIQUE_HELD, id of the holder}
-- Moves: none -> scheduled | enqueued
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/unique.lua
local request_ttl_ms = ARGV[1]
local now = now_ms()
local replies, accepted = {}, {}
local requests, uniques, states = {}, {}, {}

local function refusal(id, unique, request, fingerprint)
  if request ~= '' then
    local known = requests[request] or redis.call('get', base .. 'request:' .. request)
    if known then
      local first, print = string.sub(known, 1, 36), string.sub(known, 38)
      if print ~= fingerprint then
        return {'REQUEST_ID_CONFLICT', first}
      end
      -- The request is remembered for longer than most jobs are kept: one that is gone had ended.
      return {'DUPLICATE', first, states[first] or redis.call('hget', job_key(first), 'state') or 'completed'}
    end
  end
  local state = redis.call('hget', job_key(id), 'state')
  if state then
    return {'DUPLICATE', id, state}
  end
  if unique ~= '' then
    local holder = uniques[unique] or unique_holder(unique)
    if holder then
      return {'UNIQUE_HELD', holder}
    end
  end
  return nil
end

-- All is read and checked before anything is written.
local at = 2
while at <= #ARGV do
  local id, priority, run_ms, delay_ms, deadline, unique, request, print =
    ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  local count = tonumber(ARGV[at + 8])
  local refused = refusal(id, unique, request, print)
  if refused then
    replies[#replies + 1] = refused
  else
    local due = now
    if run_ms ~= '' then
      due = tonumber(run_ms)
    elseif delay_ms ~= '' then
      due = now + tonumber(delay_ms)
    end
    local state = due > now and 'scheduled' or 'enqueued'
    accepted[#accepted + 1] = {id, priority, state, due, deadline, unique, request, print, at + 9, at + 8 + count}
    replies[#replies + 1] = {'OK', id, state}
    states[id] = state
    if request ~= '' then requests[request] = id .. ' ' .. print end
    if unique ~= '' then uniques[unique] = id end
  end
  at = at + 9 + count
end

-- The index comes before the hash: a claim drops an id without a hash, while nothing would find a hash without an index.
local members = {}
for _, job in ipairs(accepted) do
  local id, priority, state, due, deadline = job[1], job[2], job[3], job[4], job[5]
  if state == 'scheduled' then
    announce_due(base .. 'scheduled', due)
    redis.call('zadd', base .. 'scheduled', due, id)
  else
    local line = members[priority]
    if not line then
      line = {}
      members[priority] = line
    end
    line[#line + 1] = now
    line[#line + 1] = id
  end
  if deadline ~= '' then
    announce_due(deadlines_key, tonumber(deadline))
    redis.call('zadd', deadlines_key, deadline, id)
  end
end
for priority, line in pairs(members) do
  redis.call('zadd', enqueued_key(priority), unpack(line))
end
for _, job in ipairs(accepted) do
  local id, state, due, unique, request = job[1], job[3], job[4], job[6], job[7]
  if state == 'scheduled' then
    redis.call('hset', job_key(id), 'state', state, 'submitted_ms', now, 'run_ms', due, unpack(ARGV, job[9], job[10]))
  else
    redis.call('hset', job_key(id), 'state', state, 'submitted_ms', now, unpack(ARGV, job[9], job[10]))
  end
  if unique ~= '' then
    redis.call('set', unique_index(unique), id)
  end
  if request ~= '' then
    redis.call('set', base .. 'request:' .. request, id .. ' ' .. job[8], 'px', request_ttl_ms)
  end
end
if #accepted > 0 then
  redis.call('hincrby', counters_key, 'submitted_total', #accepted)
end
if next(members) then
  wake_workers()
end
return replies
