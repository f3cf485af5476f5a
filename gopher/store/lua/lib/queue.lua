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

-- Changes of this call, published to watchers in one message: a line each, `id state attempt mark`.
local changes = {}

-- `history`: the field of the record; where it is set, the history is told too.
local function note_change(id, state, attempt, history, mark)
  changes[#changes + 1] = id .. ' ' .. state .. ' ' .. (attempt or '0') .. ' ' .. (mark or '-')
  if history then
    told[#told + 1] = {id = id, kind = mark or 'state', state = state, attempt = tostring(attempt or '0'), is_open = true}
  end
end

-- Whether somebody follows all changes of the queue, and has said so within the last minute.
local watched = nil
local function is_watched(now)
  if watched == nil then
    local moment = redis.call('hget', settings_key, 'watched_until')
    watched = moment and tonumber(moment) > now or false
  end
  return watched
end

-- Keeps the changes of this call as one entry of the queue's own stream, numbered with no gap: `c` holds their lines, and each `s` the
-- head of what a handler has said, `id kind attempt progress`, with `d` beside it.
local CHANGES_KEPT, CHANGES_KEPT_MS = 10000, 180000
local function keep_changes(now)
  local lines, entry = {}, {'at', string.format('%d', now)}
  for _, line in ipairs(changes) do
    if string.sub(line, -5) ~= ' said' then
      lines[#lines + 1] = line
    end
  end
  if #lines > 0 then
    entry[3], entry[4] = 'c', table.concat(lines, '\n')
  end
  for _, event in ipairs(told) do
    if event.is_new then
      local head = table.concat({event.id, event.kind, event.attempt, event.progress or ''}, ' ')
      for _, word in ipairs({'s', head, 'd', event.detail or ''}) do
        entry[#entry + 1] = word
      end
    end
  end
  if #entry > 2 then
    local changes_key = base .. 'changes'
    local number = redis.call('hincrby', counters_key, 'changes', 1)
    redis.call('xadd', changes_key, 'maxlen', '~', CHANGES_KEPT, string.format('%d-0', number), unpack(entry))
    redis.call('pexpire', changes_key, CHANGES_KEPT_MS)
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

-- Rings the workers that found the queue empty; silent while all of them are busy.
local function wake_workers()
  if redis.call('hget', counters_key, 'hungry') == '1' then
    redis.call('hset', counters_key, 'hungry', '0')
    redis.call('spublish', base .. 'control', 'wake')
  end
end

-- Tells the promoters of an earlier due moment than the one they sleep for.
local function announce_due(index_key, due_ms)
  local head = redis.call('zrange', index_key, 0, 0, 'withscores')
  if not head[2] or due_ms < tonumber(head[2]) then
    redis.call('spublish', base .. 'control', 'due ' .. string.format('%d', due_ms))
  end
end
