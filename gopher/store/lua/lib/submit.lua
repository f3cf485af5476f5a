-- Stores new jobs, said in a flat list of words as submit.lua takes them: needs lib/queue.lua.
-- include: lib/unique.lua

-- Where the parts of a job stand, counted from its id.
local PRIORITY, IS_FULL, RUN_MS, DELAY_MS, DEADLINE_MS, UNIQUE_KEY, REQUEST_ID, FINGERPRINT = 1, 2, 3, 4, 5, 6, 7, 8
local PLAIN_LENGTH, FULL_LENGTH = 3, 9

-- Whether the queue is known by the number that an id carries. Not so in a Redis that has lost it, or once it was freed: then a job
-- would be stored that its id does not find, and the caller is to name the queue again.
local function is_named(id)
  local known = redis.call('hmget', settings_key, 'number', 'watched_until')
  watched_ms = known[2]
  return known[1] == string.sub(id, -4)
end

-- Stores the jobs whose words begin at a place; returns an answer a job. They stand in their lines where a moment puts them, now unless
-- another is said. The caller has still to wake the workers.
local function submit_jobs(words, begin, now, request_ttl_ms, place_ms)
  local replies, accepted, states = {}, {}, {}
  local requests, uniques, dues = {}, {}, {}

  local function length_of(at)
    return words[at + IS_FULL] == '' and PLAIN_LENGTH or FULL_LENGTH
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
    local is_full = words[at + IS_FULL] ~= ''
    local refused = is_full and refusal_by_request(words[at + REQUEST_ID], words[at + FINGERPRINT])
    if refused then
      return refused
    end
    local state = redis.call('hget', job_key(id), 'state')
    if state then
      return {'DUPLICATE', id, state}
    end
    return is_full and refusal_by_unique(words[at + UNIQUE_KEY]) or nil
  end

  local function due_of(at)
    if words[at + IS_FULL] ~= '' then
      if words[at + RUN_MS] ~= '' then
        return tonumber(words[at + RUN_MS])
      elseif words[at + DELAY_MS] ~= '' then
        return now + tonumber(words[at + DELAY_MS])
      end
    end
    return now
  end

  local function remember(id, at)
    if words[at + IS_FULL] ~= '' then
      if words[at + REQUEST_ID] ~= '' then
        requests[words[at + REQUEST_ID]] = id .. ' ' .. words[at + FINGERPRINT]
      end
      if words[at + UNIQUE_KEY] ~= '' then
        uniques[words[at + UNIQUE_KEY]] = id
      end
    end
  end

  -- All is read and checked before anything is written.
  local at = begin
  while at <= #words do
    local id = words[at]
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
    at = at + length + 1 + tonumber(words[at + length])
  end

  -- The index comes before the hash: a claim drops an id without a hash, while nothing would find a hash without an index.
  local lines = {}
  for _, place in ipairs(accepted) do
    local id, due = words[place], dues[words[place]]
    if due then
      announce_due(base .. 'scheduled', due)
      redis.call('zadd', base .. 'scheduled', due, id)
    else
      local priority = words[place + PRIORITY]
      local line = lines[priority]
      if not line then
        line = {}
        lines[priority] = line
      end
      line[#line + 1] = place_ms or now
      line[#line + 1] = id
    end
    if words[place + IS_FULL] ~= '' and words[place + DEADLINE_MS] ~= '' then
      announce_due(deadlines_key, tonumber(words[place + DEADLINE_MS]))
      redis.call('zadd', deadlines_key, words[place + DEADLINE_MS], id)
    end
  end
  for priority, line in pairs(lines) do
    redis.call('zadd', enqueued_key(priority), unpack(line))
  end
  for _, place in ipairs(accepted) do
    local id, due = words[place], dues[words[place]]
    local length = length_of(place)
    local first, last = place + length + 1, place + length + tonumber(words[place + length])
    if not due then
      note_waiting(words[first] == 'type' and words[first + 1] or '')
    end
    if due then
      redis.call('hset', job_key(id), 'state', 'scheduled', 'submitted_ms', now, 'run_ms', due, unpack(words, first, last))
    elseif place_ms then
      redis.call('hset', job_key(id), 'state', 'enqueued', 'submitted_ms', now, 'line_ms', place_ms, unpack(words, first, last))
    else
      redis.call('hset', job_key(id), 'state', 'enqueued', 'submitted_ms', now, unpack(words, first, last))
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
    if is_watched(now) then
      for _, place in ipairs(accepted) do
        note_change(words[place], states[words[place]], '0')
      end
    end
  end
  return replies
end
