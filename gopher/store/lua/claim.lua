#!lua flags=allow-oom
-- Takes the next jobs, each with a lease, walking the priority cycle from where the last claim left it; parks what a limit refuses.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the worker
-- ARGV[2] how many jobs at most, 1 to 100; fewer where their records are large, at least one
-- ARGV[3] lease, ms
-- ARGV[4] id of this claim: the same id again gives the same jobs, from then on for a lease, for a reply that was lost;
--   @SESSION.N of a worker on a stream
-- ARGV[5] priority cycle where the queue has none of its own, a letter a claim: h, n or l
-- ARGV[6..] a bound of this worker: type, breaker:NAME or bulkhead:TYPE, how many jobs more, ms from which to ask it again
-- Returns: {OK, now in ms, bounds of this worker that refused a job, a line each, {id, token, attempt, {field, value, ...}}, ...},
--   the fields as they stood before the claim, and last `held` of what counts as running under a limit; or {PAUSED}; or {REPLACED},
--   a later session claims for the worker
-- Moves: enqueued -> processing; enqueued -> failed (EXPIRED) when the deadline has passed
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
-- include: lib/limits.lua
-- include: lib/numbers.lua
-- include: lib/assigned.lua
local worker, asked, lease_ms, claim_id, cycle = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local LEVELS = {h = 'high', n = 'normal', l = 'low'}
-- Chosen: a reply that takes more holds up the others on its connection; one job may go beyond it.
local REPLY_BYTES = 4194304
-- A call looks at so many jobs more than it takes, and at the parked lines of so many limits; chosen, to keep it near 1 ms.
local LOOKAHEAD, LIMITS_ASKED = 100, 16
local EXPIRED = '{"reason":"EXPIRED","message":"the deadline passed before a worker took the job","code":4}'
local claim_key = base .. 'claim:' .. worker
local now = now_ms()
local reply = {'OK', now, ''}

local session = tonumber(string.match(claim_id, '^@(%d+)%.'))
if session and last_session(worker) > session then
  return {'REPLACED'}
end
local last = redis.call('get', claim_key)
if last and string.sub(last, 1, #claim_id + 1) == claim_id .. ' ' then
  for id, token in string.gmatch(string.sub(last, #claim_id + 1), ' (%S+) (%S+)') do
    local job = read_job(id)
    if job and job.state == 'processing' and job.token == token then
      reply[#reply + 1] = {id, tonumber(token), tonumber(job.attempt), redis.call('hgetall', job_key(id))}
      redis.call('zadd', base .. 'processing', 'xx', now + lease_ms, id)
    end
  end
  redis.call('pexpire', claim_key, lease_ms)
  return reply
end

local settings = redis.call('hmget', settings_key, 'paused', 'cycle', 'limited')
if settings[1] then
  return {'PAUSED'}
end
cycle = settings[2] or cycle
local due_limits = redis.call('zrangebyscore', parked_key, '-inf', now, 'limit', 0, LIMITS_ASKED)
local is_limited = settings[3] or ARGV[6] or due_limits[1]
local wanted, capped_by = asked, nil
if is_limited then
  for at = 6, #ARGV, 4 do
    add_bound(ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]))
  end
  wanted, capped_by = cap(asked, now)
end

-- Where jobs may be taken from: for each letter the parked lines whose limits are to be asked again, which hold the older jobs,
-- then the line itself. `at` is how far a source was used up.
local sources, is_more = {h = {}, n = {}, l = {}}, false
local function add_source(letter, key, by, count)
  local ids = count > 0 and redis.call('zrange', key, 0, count - 1) or {}
  if ids[1] then
    table.insert(sources[letter], {key = key, by = by, ids = ids, at = 0, is_cut = #ids == count})
  end
end
for letter, level in pairs(LEVELS) do
  for _, by in ipairs(due_limits) do
    add_source(letter, parked_index(by, level), by, wanted)
  end
  add_source(letter, enqueued_key(level), nil, is_limited and wanted > 0 and wanted + LOOKAHEAD or wanted)
end

local function source_of(letter)
  for _, source in ipairs(sources[letter]) do
    if source.at < #source.ids and not (source.by and room_of(source.by, now).left <= 0) then
      return source
    end
  end
  return nil
end

-- With a single line there is nothing to share, and the cursor stays.
local only
for letter, list in pairs(sources) do
  if list[1] then
    only = only == nil and letter
  end
end
local cursor = only == false and tonumber(redis.call('hget', counters_key, 'cursor') or 0) % #cycle or 0
local function next_source()
  if only then
    return source_of(only), only
  end
  for i = 0, #cycle - 1 do
    local letter = string.sub(cycle, (cursor + i) % #cycle + 1, (cursor + i) % #cycle + 1)
    local source = source_of(letter)
    if source then
      cursor = (cursor + i) % #cycle
      return source, letter
    end
  end
  return nil
end

local function type_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'type' then
      return fields[i + 1]
    end
  end
  -- A damaged record has none, and is held back by nothing.
  return ''
end

local function table_of(fields)
  local job = {}
  for i = 1, #fields, 2 do
    job[fields[i]] = fields[i + 1]
  end
  return job
end

-- Read all, then write: first the new index, then the records, last the removal from the old index.
local taken, expired, parked, leases, dated, refused, holds, has_history = {}, {}, {}, {}, {}, {}, {}, {}
local expiry, turns, unparked, bytes = now + lease_ms, 0, {}, 0
-- The way of nearly every job: from the one line that there is, held back by nothing.
local plain = only and not is_limited and sources[only][1]
local plain_count = plain and #plain.ids
while turns < wanted and #parked < LOOKAHEAD and bytes < REPLY_BYTES do
  local source, letter = plain, only
  if not plain then
    source, letter = next_source()
  end
  if not source or source.at == plain_count then
    break
  end
  source.at = source.at + 1
  local id = source.ids[source.at]
  local fields = redis.call('hgetall', job_key(id))
  local state, attempt, deadline, parked_by, history
  for i = 1, #fields, 2 do
    local name = fields[i]
    bytes = bytes + #fields[i + 1]
    if name == 'state' then
      state = fields[i + 1]
    elseif name == 'attempt' then
      attempt = fields[i + 1]
    elseif name == 'deadline_ms' then
      deadline = fields[i + 1]
    elseif name == 'parked_by' then
      parked_by = fields[i + 1]
    elseif name == 'history' then
      history = '1'
    end
  end
  local by, held, job
  -- An id whose record is gone or says otherwise is left from a script that was cut short: it only leaves the line.
  if state == 'enqueued' and parked_by == source.by then
    if deadline and (tonumber(deadline) or math.huge) <= now then
      expired[#expired + 1] = id
    else
      if is_limited and is_held_back(type_of(fields)) then
        job = table_of(fields)
        by, held = admit(id, job.type, job.limit_key, now)
      end
      if not by then
        taken[#taken + 1] = {id, 0, (tonumber(attempt or 0) or 0) + 1, fields}
        leases[#leases + 1] = expiry
        leases[#leases + 1] = id
        if history then
          has_history[id] = history
        end
        if held then
          holds[id] = held
          fields[#fields + 1] = 'held'
          fields[#fields + 1] = held
        end
        if deadline then
          dated[#dated + 1] = id
        end
        if parked_by then
          unparked[#unparked + 1] = id
        end
      end
    end
  end
  if history and state ~= 'enqueued' then
    retell(id, {state = state, attempt = attempt, history = history})
  end
  if by then
    refused[by] = true
    if by == source.by then
      source.at = source.at - 1
    else
      parked[#parked + 1] = {id, by, LEVELS[letter], tonumber(job.enqueued_ms or job.submitted_ms or now) or now, parked_by}
    end
  else
    turns = turns + 1
    cursor = (cursor + 1) % #cycle
  end
end
if only == false then
  redis.call('hset', counters_key, 'cursor', cursor)
end
if is_limited then
  write_rooms(now)
end
if #taken > 0 then
  redis.call('zadd', base .. 'processing', unpack(leases))
  local token = take_numbers(counters_key, 'token', #taken, now)
  local names = {claim_id}
  for i, claimed in ipairs(taken) do
    local id = claimed[1]
    local text = digits(token + i)
    claimed[2] = token + i
    redis.call('hset', job_key(id), 'state', 'processing', 'attempt', claimed[3], 'token', text,
      'worker', worker, 'started_ms', now)
    names[#names + 1] = id
    names[#names + 1] = text
    note_change(id, 'processing', claimed[3], has_history[id])
    reply[#reply + 1] = claimed
  end
  for id, held in pairs(holds) do
    redis.call('hset', job_key(id), 'held', held)
  end
  if session then
    note_assigned(worker, session, taken, lease_ms)
  end
  redis.call('set', claim_key, table.concat(names, ' '), 'px', lease_ms)
  if #dated > 0 then
    redis.call('zrem', deadlines_key, unpack(dated))
  end
end
for _, id in ipairs(expired) do
  finish(id, 'failed', now, read_job(id), 'failure', EXPIRED)
end
for _, id in ipairs(unparked) do
  note_unparked(id)
end
for _, job in ipairs(parked) do
  redis.call('zadd', parked_index(job[2], job[3]), job[4], job[1])
  redis.call('hset', job_key(job[1]), 'parked_by', job[2])
  if not job[5] then
    redis.call('hincrby', counters_key, 'parked', 1)
  end
end
publish_changes(now)
is_more = bytes >= REPLY_BYTES
for _, list in pairs(sources) do
  for _, source in ipairs(list) do
    is_more = is_more or (source.at == #source.ids and source.is_cut)
    if source.at > 0 and source.by then
      -- By id: what was parked just now may stand before these.
      redis.call('zrem', source.key, unpack(source.ids, 1, source.at))
    elseif source.at > 0 then
      redis.call('zremrangebyrank', source.key, 0, source.at - 1)
    end
  end
end
-- When to ask again: a limit that refuses, at the moment it names; another one behind the rest, and none that holds nothing.
for _, by in ipairs(due_limits) do
  if redis.call('exists', parked_index(by, 'high'), parked_index(by, 'normal'), parked_index(by, 'low')) == 0 then
    redis.call('zrem', parked_key, by)
  elseif room_of(by, now).left <= 0 then
    refused[by] = true
  else
    redis.call('zadd', parked_key, now, by)
  end
end
if capped_by then
  refused[capped_by] = true
end
for by in pairs(refused) do
  local room = room_of(by, now)
  if room.is_bound then
    reply[3] = reply[3] .. by .. '\n'
  end
  if room.due ~= 'inf' then
    announce_asking(room.due, now)
  end
  redis.call('zadd', parked_key, room.due, by)
end
if turns < asked and not is_more and #parked < LOOKAHEAD then
  redis.call('hset', counters_key, 'hungry', '1')
elseif #taken < asked then
  -- What was picked could not all be taken, so the line may hold more than this short reply makes believe.
  redis.call('spublish', base .. 'control', 'wake')
end
return reply
