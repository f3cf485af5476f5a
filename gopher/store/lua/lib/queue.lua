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

-- Before the ids leave the indexes they came from: where this is cut short, the reaper tells what is missing.
local function publish_changes(now)
  if #told > 0 then
    write_histories(now)
  end
  if #changes > 0 then
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
