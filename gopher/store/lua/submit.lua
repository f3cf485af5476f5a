#!lua
-- Stores new jobs, each scheduled or enqueued at once.
-- KEYS[1] settings of the queue
-- ARGV[1] how long a request id is remembered, ms
-- ARGV[2..] a job: id, priority, '' or x, of x also run_ms or '', delay_ms or '', deadline_ms or '', unique_key or '', request_id or
--   '', fingerprint of the body or ''; then the count of what follows, field, value, field, value...
-- Returns: a list, an entry a job: its state when it was stored, else {DUPLICATE, id of the first, state},
--   {REQUEST_ID_CONFLICT, id of the first} or {UNIQUE_HELD, id of the holder}
-- Moves: none -> scheduled | enqueued
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/unique.lua
local request_ttl_ms = ARGV[1]
local now = now_ms()
local replies, accepted, states = {}, {}, {}
local requests, uniques, dues = {}, {}, {}

-- Where the parts of the job at a place in ARGV stand.
local RUN_MS, DELAY_MS, DEADLINE_MS, UNIQUE_KEY, REQUEST_ID, FINGERPRINT = 3, 4, 5, 6, 7, 8
local PLAIN_LENGTH, FULL_LENGTH = 3, 9

local function length_of(at)
  return ARGV[at + 2] == '' and PLAIN_LENGTH or FULL_LENGTH
end

local function refusal_by_request(request, fingerprint)
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
  return nil
end

local function refusal_by_unique(unique)
  if unique ~= '' then
    local holder = uniques[unique] or unique_holder(unique)
    if holder then
      return {'UNIQUE_HELD', holder}
    end
  end
  return nil
end

local function refusal(id, at)
  local is_full = ARGV[at + 2] ~= ''
  local refused = is_full and refusal_by_request(ARGV[at + REQUEST_ID], ARGV[at + FINGERPRINT])
  if refused then
    return refused
  end
  local state = redis.call('hget', job_key(id), 'state')
  if state then
    return {'DUPLICATE', id, state}
  end
  return is_full and refusal_by_unique(ARGV[at + UNIQUE_KEY]) or nil
end

local function due_of(at)
  if ARGV[at + 2] ~= '' then
    if ARGV[at + RUN_MS] ~= '' then
      return tonumber(ARGV[at + RUN_MS])
    elseif ARGV[at + DELAY_MS] ~= '' then
      return now + tonumber(ARGV[at + DELAY_MS])
    end
  end
  return now
end

local function remember(id, at)
  if ARGV[at + 2] ~= '' then
    if ARGV[at + REQUEST_ID] ~= '' then
      requests[ARGV[at + REQUEST_ID]] = id .. ' ' .. ARGV[at + FINGERPRINT]
    end
    if ARGV[at + UNIQUE_KEY] ~= '' then
      uniques[ARGV[at + UNIQUE_KEY]] = id
    end
  end
end

-- All is read and checked before anything is written.
local at = 2
while at <= #ARGV do
  local id = ARGV[at]
  local refused = refusal(id, at)
  if refused then
    replies[#replies + 1] = refused
  else
    local due = due_of(at)
    local state = 'enqueued'
    if due > now then
      state = 'scheduled'
      dues[id] = due
    end
    states[id] = state
    accepted[#accepted + 1] = at
    replies[#replies + 1] = state
    remember(id, at)
  end
  local length = length_of(at)
  at = at + length + 1 + tonumber(ARGV[at + length])
end

-- The index comes before the hash: a claim drops an id without a hash, while nothing would find a hash without an index.
local lines = {}
for _, place in ipairs(accepted) do
  local id, due = ARGV[place], dues[ARGV[place]]
  if due then
    announce_due(base .. 'scheduled', due)
    redis.call('zadd', base .. 'scheduled', due, id)
  else
    local priority = ARGV[place + 1]
    local line = lines[priority]
    if not line then
      line = {}
      lines[priority] = line
    end
    line[#line + 1] = now
    line[#line + 1] = id
  end
  if ARGV[place + 2] ~= '' and ARGV[place + DEADLINE_MS] ~= '' then
    announce_due(deadlines_key, tonumber(ARGV[place + DEADLINE_MS]))
    redis.call('zadd', deadlines_key, ARGV[place + DEADLINE_MS], id)
  end
end
for priority, line in pairs(lines) do
  redis.call('zadd', enqueued_key(priority), unpack(line))
end
for _, place in ipairs(accepted) do
  local id, due = ARGV[place], dues[ARGV[place]]
  local length = length_of(place)
  local first, last = place + length + 1, place + length + tonumber(ARGV[place + length])
  if due then
    redis.call('hset', job_key(id), 'state', 'scheduled', 'submitted_ms', now, 'run_ms', due, unpack(ARGV, first, last))
  else
    redis.call('hset', job_key(id), 'state', 'enqueued', 'submitted_ms', now, unpack(ARGV, first, last))
  end
end
for unique, id in pairs(uniques) do
  redis.call('set', unique_index(unique), id)
end
for request, value in pairs(requests) do
  redis.call('set', base .. 'request:' .. request, value, 'px', request_ttl_ms)
end
if #accepted > 0 then
  redis.call('hincrby', counters_key, 'submitted_total', #accepted)
end
if next(lines) then
  wake_workers()
end
return replies
