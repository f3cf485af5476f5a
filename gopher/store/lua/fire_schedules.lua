#!lua flags=allow-oom
-- Carries out firings that are due, each once whoever asks: the record says which fire time is next.
-- KEYS[1] settings of the queue
-- ARGV[1..] a firing: name of the schedule, the revision and the next time it was worked out from, fire time, 1 to make a job or 0
--   to let it pass, the time after that and when it is due (both empty for never), id for the job, labels of the job in JSON
-- Returns: a list, an entry a firing: {FIRED, id of the job}, {SKIPPED, id of the job in the way}, {PASSED}, or {STALE}: another
--   scheduler was first, or the schedule was changed
-- Moves: none -> enqueued; of the job before: scheduled | enqueued | retrying -> cancelled; processing -> processing
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/schedule.lua
local now = now_ms()
local replies = {}

local function carry_out(name, revision, expected, fire_ms, makes, next_ms, due, id, labels)
  local known = redis.call('hmget', schedule_key(name), 'revision', 'next_ms', 'paused', 'last_fire_ms', 'overlap', 'last_job')
  if known[1] ~= revision or known[2] ~= expected or known[3] then
    return {'STALE'}
  end
  local is_new = tonumber(fire_ms) > tonumber(known[4] or 0)
  put_due(name, due)
  -- The time is spent before the job is made: cut short, a firing is lost, but it is never there twice.
  redis.call('hset', schedule_key(name), 'next_ms', next_ms, 'due_ms', due, 'last_fire_ms', is_new and fire_ms or known[4])
  if makes == '0' or not is_new then
    return {'PASSED'}
  end
  return fire(name, known[5], known[6], id, labels, now)
end

for at = 1, #ARGV, 9 do
  replies[#replies + 1] = carry_out(unpack(ARGV, at, at + 8))
end
wake_workers()
publish_changes(now)
return replies
