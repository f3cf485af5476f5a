#!lua flags=allow-oom
-- Takes the next jobs, each with a lease, walking the priority cycle from where the last claim left it; parks what a limit refuses, and
-- what the worker has no handler for.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the worker
-- ARGV[2] how many jobs at most, 1 to 100; fewer where their records are large, at least one
-- ARGV[3] lease, ms
-- ARGV[4] id of this claim: the same id again gives the same jobs, from then on for a lease, for a reply that was lost;
--   @SESSION.N of a worker on a stream
-- ARGV[5] priority cycle where the queue has none of its own, a letter a claim: h, n or l
-- ARGV[6] digest of the worker's types, as declare_types.lua was told it; * for one that has all
-- ARGV[7..] a bound of this worker: type, breaker:NAME or bulkhead:TYPE, how many jobs more, ms from which to ask it again
-- Returns: {OK, now in ms, bounds of this worker that refused a job, a line each, 1 if the line may hold more than a short reply tells,
--   {id, token, attempt, {field, value, ...}}, ...}, the fields as they stood before the claim, and last `held` of what counts as
--   running under a limit; or {PAUSED}; or {REPLACED}, a later session claims for the worker; or {UNKNOWN_TYPES}, declare them anew
-- Moves: enqueued -> processing; enqueued -> failed (EXPIRED) when the deadline has passed
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
-- include: lib/limits.lua
-- include: lib/sources.lua
-- include: lib/numbers.lua
-- include: lib/assigned.lua
local worker, asked, lease_ms, claim_id, cycle, digest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
-- Chosen: a reply that takes more holds up the others on its connection; one job may go beyond it.
local REPLY_BYTES = 4194304
-- Chosen, as LOOKAHEAD: at the parked lines of so many limits a call looks.
local LIMITS_ASKED = 16
local EXPIRED = '{"reason":"EXPIRED","message":"the deadline passed before a worker took the job","code":4}'
local claim_key = base .. 'claim:' .. worker
local now = now_ms()
local reply = {'OK', now, '', 0}

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

local settings = redis.call('hmget', settings_key, 'paused', 'cycle', 'limited', 'foreign')
if settings[1] then
  return {'PAUSED'}
end
cycle = settings[2] or cycle
local counted = redis.call('hmget', counters_key, 'cursor', 'token', 'idle')
idle_digests = counted[3]
local is_limited, bounds_given = settings[3] or ARGV[7], (#ARGV - 6) / 4
local wanted, capped_by = asked, nil

-- What is to be asked again: limits, and lines of types that other workers have met and lack.
local due_limits, type_lines, left_to, foreign_limits = {}, {}, {}, {}
-- Bounds that are used up stand among those due, and must not fill the place of those that may let a job start.
local due = redis.call('zrangebyscore', parked_key, '-inf', now, 'limit', 0, LIMITS_ASKED + bounds_given)
for _, by in ipairs(due) do
  local types = foreign_types(digest, by)
  if types then
    foreign_limits[by] = types
  else
    due_limits[#due_limits + 1] = by
    left_to[by] = ''
  end
end
local types = {}
if settings[4] then
  types = digest == '*' and redis.call('smembers', foreign_key) or redis.call('sinter', foreign_key, types_key(digest))
end
for _, type in ipairs(types) do
  for _, by in ipairs(redis.call('zrange', foreign_key .. ':' .. type, 0, LIMITS_ASKED - 1)) do
    if by == 'type:' .. type then
      type_lines[#type_lines + 1] = by
    elseif not left_to[by] then
      due_limits[#due_limits + 1] = by
    end
    left_to[by] = type
  end
end

is_limited = is_limited or due_limits[1]
if is_limited then
  for at = 7, #ARGV, 4 do
    add_bound(ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]))
  end
  wanted, capped_by = cap(asked, now)
end

local is_more = wanted > 0 and #due == LIMITS_ASKED + bounds_given
for letter, level in pairs(LEVELS) do
  for _, by in ipairs(due_limits) do
    if room_of(by, now).left > 0 then
      add_source(letter, parked_index(by, level), by, wanted)
    end
  end
  for _, by in ipairs(type_lines) do
    add_source(letter, parked_index(by, level), by, wanted, true)
  end
  add_source(letter, enqueued_key(level), nil, is_limited and wanted > 0 and wanted + LOOKAHEAD or wanted, type_lines[1])
end

-- With a single line there is nothing to share, and the cursor stays.
local only
for letter, list in pairs(sources) do
  if list[1] then
    only = only == nil and letter
  end
end
local cursor = only == false and tonumber(counted[1] or 0) % #cycle or 0
local function next_source()
  if only then
    return source_of(only, now), only
  end
  for i = 0, #cycle - 1 do
    local letter = string.sub(cycle, (cursor + i) % #cycle + 1, (cursor + i) % #cycle + 1)
    local source = source_of(letter, now)
    if source then
      cursor = (cursor + i) % #cycle
      return source, letter
    end
  end
  return nil
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
local plain = only and not is_limited and not sources[only][2] and sources[only][1]
local plain_count = plain and #plain.ids
while turns < wanted and #parked < LOOKAHEAD and bytes < REPLY_BYTES do
  local source, letter = plain, only
  if not plain then
    source, letter = next_source()
  end
  if source and source.at == plain_count then
    source = read_on(source) and source
    plain_count = source and #source.ids
  end
  if not source then
    break
  end
  source.at = source.at + 1
  local id = source.ids[source.at]
  local fields = redis.call('hgetall', job_key(id))
  -- A damaged record has no type, and is held back by nothing.
  local state, type, attempt, deadline, parked_by, history = nil, '', nil, nil, nil, nil
  for i = 1, #fields, 2 do
    local name = fields[i]
    bytes = bytes + #fields[i + 1]
    if name == 'state' then
      state = fields[i + 1]
    elseif name == 'type' then
      type = fields[i + 1]
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
  local by, held, is_foreign
  -- An id whose record is gone or says otherwise is left from a script that was cut short: it only leaves the line.
  if state == 'enqueued' and parked_by == source.by then
    if deadline and (tonumber(deadline) or math.huge) <= now then
      expired[#expired + 1] = id
    else
      if type ~= '' and not (served[type] or serves(digest, type)) then
        by, is_foreign = 'type:' .. type, true
        foreign[type] = (foreign[type] or 0) + 1
      elseif is_limited and is_held_back(type) then
        by, held = admit(id, type, table_of(fields).limit_key, now)
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
    refused[by] = not is_foreign or nil
    if by == source.by then
      source.at = source.at - 1
    else
      local job = table_of(fields)
      parked[#parked + 1] = {id, by, LEVELS[letter], tonumber(job.enqueued_ms or job.submitted_ms or now) or now, parked_by}
    end
  else
    turns = turns + 1
    cursor = (cursor + 1) % #cycle
  end
end
local is_short = turns < asked
-- A worker that has found a job of its own has declared its types. Its claims that find none keep the declaration from ending.
if digest ~= '*' and (#taken == 0 or next(foreign)) and redis.call('pexpire', types_key(digest), IDLE_MS) == 0 then
  return {'UNKNOWN_TYPES'}
end
for type in pairs(foreign) do
  leave_to(type, 'type:' .. type, now)
end
for by, types in pairs(foreign_limits) do
  for _, type in ipairs(types) do
    leave_to(type, by, now)
    note_waiting(type)
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
  local token = take_numbers(counters_key, 'token', #taken, now, counted[2])
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
for type, count in pairs(foreign) do
  note_waiting(type, count)
end
publish_changes(now)
local is_left = false
is_more = is_more or bytes >= REPLY_BYTES
for _, list in pairs(sources) do
  for _, source in ipairs(list) do
    is_more = is_more or (source.at == #source.ids and source.is_cut)
    is_left = is_left or not source.by and source.at < #source.ids
    if source.at > 0 and source.by then
      -- By id: what was parked just now may stand before these.
      redis.call('zrem', source.key, unpack(source.ids, 1, source.at))
    elseif source.at > 0 then
      redis.call('zremrangebyrank', source.key, 0, source.at - 1)
    end
  end
end
-- When to ask again: a limit that refuses, at the moment it names; another one behind the rest, and none that holds nothing. Of what may
-- let more start than this worker takes, another worker is told.
local function ask_next(by)
  local type = left_to[by]
  if type == '' then
    redis.call('zadd', parked_key, now, by)
  else
    redis.call('zadd', foreign_key .. ':' .. type, now, by)
  end
  if not is_short then
    note_waiting(rung_for(by))
  end
end

for _, list in ipairs({due_limits, type_lines}) do
  for _, by in ipairs(list) do
    local has_none = is_empty(by)
    if has_none then
      redis.call('zrem', parked_key, by)
    elseif room_of(by, now).left <= 0 then
      refused[by] = true
    else
      ask_next(by)
    end
    if left_to[by] ~= '' and (has_none or refused[by]) then
      unleave(left_to[by], by)
    end
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
if is_limited and not is_short and is_left then
  -- What a limit of the whole queue has let start may be more than this worker takes.
  note_waiting('')
end
wake_workers()
if is_short and (is_more or #parked >= LOOKAHEAD) then
  -- What was picked could not all be taken, so the line may hold more than this short reply makes believe.
  reply[4] = 1
elseif is_short then
  note_idle(digest, worker, now)
end
return reply
