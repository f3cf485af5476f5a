-- The keys of a queue, built from KEYS[1] (its settings), and what every script says to those who listen.
local base = string.sub(KEYS[1], 1, -9)
local settings_key = KEYS[1]
local counters_key = base .. 'counters'
local deadlines_key = base .. 'deadlines'
local outbox_key = base .. 'outbox'

local function job_key(id)
  return base .. 'job:' .. id
end

local function enqueued_key(priority)
  return base .. 'enqueued:' .. (priority or 'normal')
end

-- include: lib/history.lua

-- Changes of this call, published to watchers in one message: a line each, `id state attempt mark`; none where nobody is told.
local changes = {}
-- Of those that are told once more, by their place, what the history is told: it knows whether they are news.
local retold = {}

-- Until when somebody follows all changes of the queue, as was said last; false where nobody does.
local watched_ms = nil
local function watched_until()
  if watched_ms == nil then
    watched_ms = redis.call('hget', settings_key, 'watched_until')
  end
  return watched_ms
end

local function is_watched(now)
  if watched_until() and tonumber(watched_ms) <= now then
    watched_ms = false
    redis.call('hdel', settings_key, 'watched_until')
  end
  return watched_ms
end

-- Whether anybody is told of changes: a server that is subscribed, or who follows the queue. Of most jobs nobody is told (measured:
-- to say all the same what became of them took 7 % of Redis's time for a job).
local heard = nil
local function is_heard()
  if heard == nil then
    heard = watched_until() or redis.call('pubsub', 'shardnumsub', base .. 'events')[2] > 0
  end
  return heard
end

-- `history`: the field of the record; where it is set, the history is told too.
local function note_change(id, state, attempt, history, mark)
  if is_heard() then
    changes[#changes + 1] = id .. ' ' .. state .. ' ' .. (attempt or '0') .. ' ' .. (mark or '-')
  end
  if history then
    told[#told + 1] = {id = id, kind = mark or 'state', state = state, attempt = tostring(attempt or '0'), is_open = true}
  end
end

-- The same of what may have been told before.
local function note_change_again(id, state, attempt, history, mark)
  note_change(id, state, attempt, history, mark)
  if is_heard() then
    retold[#changes] = history and told[#told] or {}
  end
end

-- Keeps the changes of this call as one entry of the queue's own stream, numbered with no gap: `c` holds their lines, and each `s` the
-- head of what a handler has said, `id kind attempt progress`, with `d` beside it. `b` is the bytes of all entries up to this one.
local CHANGES_KEPT, CHANGES_KEPT_BYTES, CHANGES_KEPT_MS = 10000, 16777216, 180000
local CHANGES_STEP_BYTES = 1048576

-- Looks at the bytes once in a while: what is read to find the place is about as much as is trimmed.
local function trim_changes(changes_key, before, total)
  if math.floor(before / CHANGES_STEP_BYTES) == math.floor(total / CHANGES_STEP_BYTES) then
    return
  end
  local from = '-'
  while true do
    local found = redis.call('xrange', changes_key, from, '+', 'count', 16)
    for _, each in ipairs(found) do
      if tonumber(each[2][2]) > total - CHANGES_KEPT_BYTES then
        redis.call('xtrim', changes_key, 'minid', each[1])
        return
      end
    end
    from = '(' .. found[#found][1]
  end
end

local function keep_changes(now)
  local lines, entry = {}, {'b', '', 'at', string.format('%d', now)}
  for place, line in ipairs(changes) do
    local again = retold[place]
    if string.sub(line, -5) ~= ' said' and (not again or again.is_added) then
      lines[#lines + 1] = line
    end
  end
  if #lines > 0 then
    entry[5], entry[6] = 'c', table.concat(lines, '\n')
  end
  for _, event in ipairs(told) do
    if event.is_new then
      local head = table.concat({event.id, event.kind, event.attempt, event.progress or ''}, ' ')
      for _, word in ipairs({'s', head, 'd', event.detail or ''}) do
        entry[#entry + 1] = word
      end
    end
  end
  if #entry > 4 then
    local changes_key, bytes = base .. 'changes', 0
    for _, word in ipairs(entry) do
      bytes = bytes + #word
    end
    local total = redis.call('hincrby', counters_key, 'changes_bytes', bytes)
    entry[2] = string.format('%d', total)
    local number = redis.call('hincrby', counters_key, 'changes', 1)
    redis.call('xadd', changes_key, 'maxlen', '~', CHANGES_KEPT, string.format('%d-0', number), unpack(entry))
    redis.call('pexpire', changes_key, CHANGES_KEPT_MS)
    trim_changes(changes_key, total - bytes, total)
  end
end

-- Before the ids leave the indexes they came from: where this is cut short, the reaper tells what is missing.
local function publish_changes(now)
  if #told > 0 then
    write_histories(now)
  end
  if #changes > 0 then
    if is_watched(now) then
      keep_changes(now)
    end
    redis.call('spublish', base .. 'events', now .. '\n' .. table.concat(changes, '\n'))
  end
end

-- include: lib/wake.lua

-- Tells the promoters of an earlier due moment than the one they sleep for.
local function announce_due(index_key, due_ms)
  local head = redis.call('zrange', index_key, 0, 0, 'withscores')
  if not head[2] or due_ms < tonumber(head[2]) then
    redis.call('spublish', base .. 'control', 'due ' .. string.format('%d', due_ms))
  end
end
