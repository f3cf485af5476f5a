-- What a queue holds, and what of it is overdue: needs lib/queue.lua.

-- Indexes by the moment at which work is due: a worker of the queue does it within seconds.
local TIMED = {'processing', 'scheduled', 'retrying', 'deadlines', 'attached', 'orphans', 'completed', 'failed', 'cancelled'}
local UNTIMED = {'enqueued:high', 'enqueued:normal', 'enqueued:low', 'parked', 'schedules', 'outbox'}
-- What scripts note in the settings by themselves; all else there is an operator's.
local NOTED = {number = true, idle_since = true, watched_until = true, limited = true, foreign = true}

-- Whether something should have been done before a moment.
local function has_overdue(moment)
  for _, name in ipairs(TIMED) do
    local head = redis.call('zrange', base .. name, 0, 0, 'withscores')
    if head[2] and tonumber(head[2]) < moment then
      return true
    end
  end
  return redis.call('exists', outbox_key) == 1
end

-- Whether there is anything that was not put there by the queue's mere use.
local function holds_anything(now)
  for _, names in ipairs({TIMED, UNTIMED}) do
    for _, name in ipairs(names) do
      if redis.call('exists', base .. name) == 1 then
        return true
      end
    end
  end
  local watched = redis.call('hget', settings_key, 'watched_until')
  if watched and tonumber(watched) > now then
    return true
  end
  for _, field in ipairs(redis.call('hkeys', settings_key)) do
    if not NOTED[field] then
      return true
    end
  end
  for _, field in ipairs(redis.call('hkeys', base .. 'limits')) do
    if string.sub(field, 1, 9) ~= 'declared:' then
      return true
    end
  end
  return false
end
