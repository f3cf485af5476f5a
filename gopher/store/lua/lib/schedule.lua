-- The schedules of a queue, and the jobs they make: needs lib/queue.lua.
-- include: lib/final.lua
-- include: lib/numbers.lua
-- include: lib/cancel.lua
local schedules_key = base .. 'schedules'
local CANCEL_GRACE_MS = 5000

local function schedule_key(name)
  return base .. 'schedule:' .. name
end

-- Never the same twice in a queue: what was worked out for a schedule that is gone fits none that has taken its name.
local function new_revision(now)
  return digits(take_numbers(counters_key, 'schedule_revision', 1, now) + 1)
end

-- Says when a schedule is due: `due` in ms, or empty for never. Tells the schedulers if it is earlier than what they sleep for.
local function put_due(name, due)
  if due == '' then
    redis.call('zadd', schedules_key, 'inf', name)
    return
  end
  local head = redis.call('zrange', schedules_key, 0, 0, 'withscores')
  redis.call('zadd', schedules_key, due, name)
  if not head[2] or tonumber(due) < tonumber(head[2]) then
    redis.call('spublish', base .. 'control', 'schedule ' .. due)
  end
end

-- The job that the schedule made last, if it has not ended.
local function open_job(last_job)
  local job = last_job and read_job(last_job)
  if job and job.state ~= 'completed' and job.state ~= 'failed' and job.state ~= 'cancelled' then
    return job
  end
  return nil
end

-- Stores a job made from the schedule's record, enqueued at once.
local function make_job(name, id, labels, now)
  local fields, priority, type = {}, nil, nil
  local record = redis.call('hgetall', schedule_key(name))
  for i = 1, #record, 2 do
    local field = string.match(record[i], '^job:(.+)$')
    if field == 'priority' then
      priority = record[i + 1]
    elseif field == 'type' then
      type = record[i + 1]
    end
    if field and field ~= 'labels' then
      fields[#fields + 1] = field
      fields[#fields + 1] = record[i + 1]
    end
  end
  note_waiting(type)
  redis.call('zadd', enqueued_key(priority), now, id)
  redis.call('hset', job_key(id), 'state', 'enqueued', 'submitted_ms', now, 'labels', labels, unpack(fields))
  redis.call('hincrby', counters_key, 'submitted_total', 1)
  if is_watched(now) then
    note_change(id, 'enqueued', '0')
  end
  redis.call('hset', schedule_key(name), 'last_job', id)
  redis.call('hincrby', schedule_key(name), 'fired_total', 1)
end

-- Makes the job of a firing, as the overlap policy has it. Returns FIRED, or SKIPPED with the id of the job in the way.
local function fire(name, overlap, last_job, id, labels, now)
  local open = overlap ~= 'queue' and open_job(last_job)
  if open and overlap == 'skip' then
    redis.call('hincrby', schedule_key(name), 'skipped_total', 1)
    return {'SKIPPED', last_job}
  end
  if open then
    cancel_job(last_job, open, 'schedule ' .. name .. ' fired again', CANCEL_GRACE_MS, now, 'schedule ' .. name)
  end
  make_job(name, id, labels, now)
  return {'FIRED', id}
end
