#!lua flags=allow-oom
-- Proves of some jobs that each stands in the index of its state and nowhere else, and mends those that do not.
-- KEYS[1] settings of the queue
-- ARGV[1] 1 to mend, 0 to look
-- ARGV[2] where the ids were found: the name of an index, or job for their records
-- ARGV[3..] ids
-- Returns: {how many have a record, {kind, id, detail, 1 if mended or 0}, ...}
-- Moves: none; an id goes to the index that its record names
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
-- include: lib/numbers.lua
local mends, found_in = ARGV[1] == '1', ARGV[2]
local INDEXES = {'scheduled', 'enqueued:high', 'enqueued:normal', 'enqueued:low', 'processing', 'retrying', 'completed',
  'failed', 'cancelled'}
local WAITING = {scheduled = true, enqueued = true, retrying = true}
local FINAL = {completed = true, failed = true, cancelled = true}
-- Time for a worker that does live to extend the lease before it is taken away.
local GRACE_MS = 30000
local now = now_ms()
local last_token = tonumber(redis.call('hget', counters_key, 'token') or 0)
local reply = {0}

local function add(kind, id, detail, is_mended)
  reply[#reply + 1] = {kind, id, detail, is_mended and 1 or 0}
end

local function score_of(job)
  if job.state == 'processing' then
    return now + GRACE_MS
  elseif job.state == 'enqueued' then
    return job.enqueued_ms or job.submitted_ms or now
  elseif FINAL[job.state] then
    return retention_end(job.state, now, job.retention_ms)
  end
  return redis.call('hget', job_key(job.id), 'run_ms') or now
end

-- The one index that a job belongs in; nil when its state is none that this version knows.
local function home_of(job)
  if WAITING[job.state] or FINAL[job.state] or job.state == 'processing' then
    return string.sub(waiting_index(job), #base + 1)
  end
  return nil
end

-- Of the parked lines, which are as many as there are limits, those that are suspected.
local function places_of(id, home)
  local places, names = {}, {unpack(INDEXES)}
  if string.sub(found_in, 1, 7) == 'parked:' then
    names[#names + 1] = found_in
  end
  if home and string.sub(home, 1, 7) == 'parked:' and home ~= found_in then
    names[#names + 1] = home
  end
  for _, name in ipairs(names) do
    if redis.call('zscore', base .. name, id) then
      places[#places + 1] = name
    end
  end
  return places
end

local function kind_of(job, places, home)
  if #places == 0 then
    return job.state == 'processing' and 'LEASELESS_RUNNING' or 'MISSING_INDEX'
  elseif #places > 1 then
    return 'DOUBLE_INDEX'
  elseif places[1] ~= home then
    return 'STATE_MISMATCH'
  end
  return nil
end

local function check_place(id, job)
  local home = home_of(job)
  local places = places_of(id, home)
  local kind = kind_of(job, places, home)
  if not kind then
    return
  end
  if mends and home then
    if not redis.call('zscore', base .. home, id) then
      redis.call('zadd', base .. home, score_of(job), id)
    end
    if job.state == 'enqueued' and job.parked_by then
      redis.call('zadd', parked_key, 'nx', now, job.parked_by)
    end
    for _, name in ipairs(places) do
      if name ~= home then
        redis.call('zrem', base .. name, id)
      end
    end
  end
  add(kind, id, 'state ' .. job.state .. ', found in ' .. (places[1] and table.concat(places, ', ') or 'no index'), mends and home)
end

local function check_token(id, job)
  local token = tonumber(job.token or 0) or 0
  if job.state == 'processing' and token == 0 then
    -- Nobody can settle it: with a token of nobody and no lease left, the reaper takes it back.
    if mends then
      local taken = take_numbers(counters_key, 'token', 1, now) + 1
      last_token = taken
      redis.call('hset', job_key(id), 'token', digits(taken), 'attempt', math.max(1, tonumber(job.attempt)))
      redis.call('zadd', base .. 'processing', now, id)
    end
    add('TOKENLESS_RUNNING', id, 'processing with no lease token', mends)
  elseif token > last_token then
    if mends then
      redis.call('hset', counters_key, 'token', digits(token))
    end
    add('COUNTER_DRIFT', id, 'lease token ' .. digits(token) .. ', but the queue has counted to ' .. digits(last_token), mends)
    last_token = token
  end
end

-- A worker of the queue takes a job back within seconds, and any server within a minute. Looked at in one of the two walks.
local OVERDUE_MS = 60000
local function check_lease(id, job)
  local ends = found_in == 'processing' and job.state == 'processing' and redis.call('zscore', base .. 'processing', id)
  if ends and tonumber(ends) < now - OVERDUE_MS then
    add('LEASE_OVERDUE', id, 'its lease ended over ' .. OVERDUE_MS / 1000 .. ' s ago, and nothing has taken it back', mends)
  end
end

local function check_unique(id, job)
  if not job.unique_key or FINAL[job.state] then
    return
  end
  local holder = redis.call('get', unique_index(job.unique_key))
  if holder == id then
    return
  end
  local is_free = not unique_holder(job.unique_key)
  if mends and is_free then
    redis.call('set', unique_index(job.unique_key), id)
  end
  add('UNIQUE_LEAK', id, 'does not hold its unique key ' .. job.unique_key .. ', held by ' .. (holder or 'nobody'), mends and is_free)
end

local function check_deadline(id, job)
  local due = redis.call('zscore', deadlines_key, id)
  if WAITING[job.state] and job.deadline_ms and not due then
    if mends then
      redis.call('zadd', deadlines_key, job.deadline_ms, id)
    end
    add('MISSING_INDEX', id, 'state ' .. job.state .. ' with a deadline, not found in deadlines', mends)
  elseif due and not (WAITING[job.state] and job.deadline_ms) then
    if mends then
      redis.call('zrem', deadlines_key, id)
    end
    add('STATE_MISMATCH', id, 'state ' .. job.state .. ', found in deadlines', mends)
  end
end

-- A place under a limit that was lost lets one too many run, and is given back by nobody.
local function check_held(id, job)
  for by in string.gmatch(job.state == 'processing' and job.held or '', '[^\n]+') do
    if redis.call('sismember', limit_key(by), id) == 0 then
      if mends then
        redis.call('sadd', limit_key(by), id)
      end
      add('MISSING_INDEX', id, 'processing under ' .. by .. ', not counted there', mends)
    end
  end
end

local function check_orphan(id)
  local places = places_of(id)
  if redis.call('zscore', deadlines_key, id) then
    places[#places + 1] = 'deadlines'
  end
  if redis.call('exists', job_key(id)) == 1 then
    add('STATE_MISMATCH', id, 'the record has no state', false)
    return
  elseif #places == 0 then
    return
  end
  if mends then
    for _, name in ipairs(places) do
      redis.call('zrem', base .. name, id)
    end
  end
  add('ORPHAN_ID', id, 'no record, found in ' .. table.concat(places, ', '), mends)
end

for at = 3, #ARGV do
  local id = ARGV[at]
  local job = read_job(id)
  if not job then
    check_orphan(id)
  else
    job.id = id
    reply[1] = reply[1] + 1
    -- What stands in a wrong index is found by walking that index.
    local home = home_of(job)
    if home ~= found_in and (found_in ~= 'job' or not home or not redis.call('zscore', base .. home, id)) then
      check_place(id, job)
    end
    check_token(id, job)
    check_lease(id, job)
    check_unique(id, job)
    check_deadline(id, job)
    check_held(id, job)
  end
end
return reply
