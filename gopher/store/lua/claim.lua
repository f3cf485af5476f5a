#!lua flags=allow-oom
-- Takes the next jobs, each with a lease, walking the priority cycle from where the last claim left it.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the worker
-- ARGV[2] how many jobs at most, 1 to 100
-- ARGV[3] lease, ms
-- ARGV[4] id of this claim: the same id again gives the same jobs, for a reply that was lost
-- ARGV[5] priority cycle, a letter a claim: h, n or l
-- Returns: {OK, now in ms, {id, token, attempt, {field, value, ...}}, ...}, the fields as they stood before the claim; or {PAUSED}
-- Moves: enqueued -> processing; enqueued -> failed (EXPIRED) when the deadline has passed
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
local worker, wanted, lease_ms, claim_id, cycle = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local LEVELS = {h = 'high', n = 'normal', l = 'low'}
local EXPIRED = '{"reason":"EXPIRED","message":"the deadline passed before a worker took the job","code":4}'
local claim_key = base .. 'claim:' .. worker
local now = now_ms()
local reply = {'OK', now}

local last = redis.call('get', claim_key)
if last and string.sub(last, 1, #claim_id + 1) == claim_id .. ' ' then
  for id, token in string.gmatch(string.sub(last, #claim_id + 1), ' (%S+) (%S+)') do
    local job = read_job(id)
    if job and job.state == 'processing' and job.token == token then
      reply[#reply + 1] = {id, tonumber(token), tonumber(job.attempt), redis.call('hgetall', job_key(id))}
    end
  end
  return reply
end

if redis.call('hget', settings_key, 'paused') then
  return {'PAUSED'}
end

-- How many to take from each line, and in which order.
local left, lines, total = {}, 0, 0
for letter, level in pairs(LEVELS) do
  left[letter] = redis.call('zcard', enqueued_key(level))
  total = total + left[letter]
  if left[letter] > 0 then
    lines = lines + 1
  end
end
local order, takes = {}, {h = 0, n = 0, l = 0}
if lines == 1 then
  for letter, count in pairs(left) do
    takes[letter] = math.min(count, wanted)
    for i = 1, takes[letter] do
      order[i] = letter
    end
  end
elseif lines > 1 then
  local cursor = tonumber(redis.call('hget', counters_key, 'cursor') or 0) % #cycle
  for i = 1, math.min(wanted, total) do
    local letter
    repeat
      letter = string.sub(cycle, cursor + 1, cursor + 1)
      cursor = (cursor + 1) % #cycle
    until left[letter] > 0
    left[letter] = left[letter] - 1
    takes[letter] = takes[letter] + 1
    order[i] = letter
  end
  redis.call('hset', counters_key, 'cursor', cursor)
end

local heads, at = {}, {h = 0, n = 0, l = 0}
for letter, count in pairs(takes) do
  if count > 0 then
    heads[letter] = redis.call('zrange', enqueued_key(LEVELS[letter]), 0, count - 1)
  end
end

-- Read all, then write: first the new index, then the records, last the removal from the old index.
local taken, expired, leases, dated = {}, {}, {}, {}
local expiry = now + lease_ms
for _, letter in ipairs(order) do
  at[letter] = at[letter] + 1
  local id = heads[letter][at[letter]]
  local fields = redis.call('hgetall', job_key(id))
  local state, attempt, deadline
  for i = 1, #fields, 2 do
    local name = fields[i]
    if name == 'state' then
      state = fields[i + 1]
    elseif name == 'attempt' then
      attempt = fields[i + 1]
    elseif name == 'deadline_ms' then
      deadline = fields[i + 1]
    end
  end
  -- An id whose record is gone or says otherwise is left from a script that was cut short: it only leaves the line.
  if state == 'enqueued' then
    if deadline and tonumber(deadline) <= now then
      expired[#expired + 1] = id
    else
      taken[#taken + 1] = {id, 0, (attempt or 0) + 1, fields}
      leases[#leases + 1] = expiry
      leases[#leases + 1] = id
      if deadline then
        dated[#dated + 1] = id
      end
    end
  end
end
if #taken > 0 then
  redis.call('zadd', base .. 'processing', unpack(leases))
  local token = redis.call('hincrby', counters_key, 'token', #taken) - #taken
  local names = {claim_id}
  for i, claimed in ipairs(taken) do
    local id = claimed[1]
    claimed[2] = token + i
    redis.call('hset', job_key(id), 'state', 'processing', 'attempt', claimed[3], 'token', claimed[2],
      'worker', worker, 'started_ms', now)
    names[#names + 1] = id .. ' ' .. claimed[2]
    note_change(id, 'processing', claimed[3])
    reply[#reply + 1] = claimed
  end
  redis.call('set', claim_key, table.concat(names, ' '), 'px', lease_ms)
  if #dated > 0 then
    redis.call('zrem', deadlines_key, unpack(dated))
  end
end
for _, id in ipairs(expired) do
  finish(id, 'failed', now, read_job(id), 'failure', EXPIRED)
end
for letter, count in pairs(takes) do
  if count > 0 then
    redis.call('zremrangebyrank', enqueued_key(LEVELS[letter]), 0, count - 1)
  end
end
if #order < wanted then
  redis.call('hset', counters_key, 'hungry', '1')
elseif #taken < wanted then
  -- What was picked could not all be taken, so the line may hold more than this short reply makes believe.
  redis.call('spublish', base .. 'control', 'wake')
end
publish_changes(now)
return reply
