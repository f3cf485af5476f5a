-- What has happened to a job, told in order: needs lib/queue.lua. A stream of events SEQ-0, from 1 on with no gap, bounded.
--
-- A job has a history from its first watcher on, or from the first thing that its handler says; its record then has the field
-- `history`. An event holds `e`, its head, and `d`, what is told beside it. The head has nine words: kind; where the job stood after
-- it, state and attempt; its moment, ms; how many bytes all events up to it have taken, and how many of those were dropped; how many
-- sayings of the attempt were told; 1 once a cancel is asked for; how far the handler has come. So the last event alone tells all
-- that the next one needs, and to add one is a single write.
local HISTORY_EVENTS, HISTORY_BYTES, HISTORY_KEPT_BYTES = 10000, 4194304, 3670016
-- What an event takes beside what it tells, about.
local HEAD_BYTES = 80
local HEAD = '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$'
local ENDED = {completed = true, failed = true, cancelled = true}
-- Where the histories stand that this call has met, by id.
local histories = {}
-- What is to be told at the end of the call.
local told = {}

local function history_key(id)
  return base .. 'history:' .. id
end

local function read_event(entry)
  local event = {seq = tonumber(string.match(entry[1], '^%d+'))}
  event.kind, event.state, event.attempt, event.at, event.bytes, event.dropped, event.said, event.cancelled, event.progress =
    string.match(entry[2][2], HEAD)
  event.at, event.bytes, event.dropped, event.said = tonumber(event.at), tonumber(event.bytes), tonumber(event.dropped), tonumber(event.said)
  event.size = HEAD_BYTES + #entry[2][4]
  return event
end

local function event_at(id, seq)
  local place = string.format('%d-0', seq)
  return read_event(redis.call('xrange', history_key(id), place, place)[1])
end

-- Drops the oldest events where all of them take too many bytes: rather many at once than some with each.
local function drop_oldest(id, stand)
  local first = redis.call('xrange', history_key(id), '-', '+', 'count', 1)[1]
  first = first and read_event(first)
  if first then
    stand.dropped = first.bytes - first.size
  end
  if not first or stand.bytes - stand.dropped <= HISTORY_BYTES then
    return
  end
  local low, high = first.seq, stand.seq - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if stand.bytes - event_at(id, middle).bytes <= HISTORY_KEPT_BYTES then
      high = middle
    else
      low = middle + 1
    end
  end
  stand.dropped = event_at(id, low).bytes
  redis.call('xtrim', history_key(id), 'minid', string.format('%d-0', low + 1))
end

local function add_event(id, stand, kind, state, attempt, at, detail)
  if kind == 'cancel_requested' or state == 'cancelled' then
    stand.cancelled = '1'
  elseif ENDED[stand.state] then
    -- It was requeued.
    stand.cancelled = '0'
  end
  if kind == 'state' and state == 'processing' then
    stand.said, stand.progress = 0, '0'
  end
  stand.seq, stand.state, stand.attempt, stand.at = stand.seq + 1, state, attempt, math.max(stand.at, at)
  stand.bytes = stand.bytes + HEAD_BYTES + #detail
  if stand.bytes - stand.dropped > HISTORY_BYTES then
    drop_oldest(id, stand)
  end
  local head = string.format('%s %s %s %d %d %d %d %s %s', kind, state, attempt, stand.at, stand.bytes, stand.dropped, stand.said,
    stand.cancelled, stand.progress)
  redis.call('xadd', history_key(id), 'minid', string.format('%d-0', math.max(0, stand.seq - HISTORY_EVENTS + 1)),
    string.format('%d-0', stand.seq), 'e', head, 'd', detail)
end

-- What the record tells of attempts that have ended, in their order: {number, outcome, started, finished}.
local function ended_attempts(fields)
  local attempts = {}
  for i = 1, #fields, 2 do
    local number = string.match(fields[i], '^attempt:(%d+)$')
    if number then
      local outcome, started, finished = string.match(fields[i + 1], '^(%S+) %S+ (%d+) (%d+)')
      attempts[#attempts + 1] = {tonumber(number), outcome, tonumber(started), tonumber(finished)}
    end
  end
  table.sort(attempts, function(a, b) return a[1] < b[1] end)
  return attempts
end

local function state_after(number, outcome, job)
  if job.spent == tostring(number) then
    return outcome == 'cancelled' and 'cancelled' or 'failed'
  end
  return outcome == 'lost' and 'enqueued' or 'retrying'
end

-- Begins a history with what the record tells of. One that a call which was cut short has begun has no field, and is made anew.
local function open_history(id, now)
  local fields, job = redis.call('hgetall', job_key(id)), {}
  for i = 1, #fields, 2 do
    job[fields[i]] = fields[i + 1]
  end
  if not job.state then
    return nil
  end
  local attempt = job.attempt or '0'
  local stand = {seq = 0, state = '', attempt = '0', at = 0, bytes = 0, dropped = 0, said = 0, cancelled = '0', progress = '0'}
  local function tell(kind, state, number, at, detail)
    add_event(id, stand, kind, state, tostring(number), tonumber(at or false) or stand.at, detail or '')
  end
  local function start(number, at)
    if stand.state ~= 'enqueued' then
      tell('state', 'enqueued', stand.attempt)
    end
    tell('state', 'processing', number, at)
  end
  redis.call('unlink', history_key(id))
  tell('state', job.run_ms and not job.token and 'scheduled' or 'enqueued', 0, job.submitted_ms)
  for _, ended in ipairs(ended_attempts(fields)) do
    start(ended[1], ended[3])
    if ended[1] < tonumber(attempt) or job.state == 'retrying' or job.state == 'enqueued' then
      tell('state', state_after(ended[1], ended[2], job), ended[1], ended[4])
    end
  end
  if (job.state == 'processing' or job.state == 'completed') and not (stand.state == 'processing' and stand.attempt == attempt) then
    start(attempt, job.started_ms)
  end
  if job.progress and stand.state == 'processing' then
    stand.progress = job.progress
    tell('progress', 'processing', attempt, nil, job.progress_message)
  end
  if job.cancel_reason and job.state == 'processing' then
    tell('cancel_requested', 'processing', attempt, now)
  end
  if stand.state ~= job.state or stand.attempt ~= attempt then
    tell('state', job.state, attempt, ENDED[job.state] and job.finished_ms or job.state == 'enqueued' and job.enqueued_ms or nil)
  end
  redis.call('hset', job_key(id), 'history', '1')
  return stand
end

-- Where the history of a job stands; it is opened where it is not yet, or gone. Nil when there is no such job.
local function history_of(id, is_open, now)
  if not histories[id] then
    local last = is_open and redis.call('xrevrange', history_key(id), '+', '-', 'count', 1)[1]
    histories[id] = last and read_event(last) or open_history(id, now)
  end
  return histories[id]
end

-- Adds an event, and before it the state that it speaks of, where a call that was cut short has not told of that.
local function tell_event(stand, event, now)
  if stand.state ~= event.state or stand.attempt ~= event.attempt then
    add_event(event.id, stand, 'state', event.state, event.attempt, now, '')
    event.is_added = true
  end
  if event.said then
    -- Told once, however often the call is repeated.
    if event.said <= stand.said then
      return
    end
    stand.said = event.said
    event.is_new = true
  end
  stand.progress = event.progress or stand.progress
  if event.kind ~= 'state' and not (event.kind == 'cancel_requested' and stand.cancelled == '1') then
    add_event(event.id, stand, event.kind, event.state, event.attempt, now, event.detail or '')
    event.is_added = true
  end
end

local function write_histories(now)
  for _, event in ipairs(told) do
    local stand = history_of(event.id, event.is_open, now)
    if stand then
      tell_event(stand, event, now)
    end
  end
end
