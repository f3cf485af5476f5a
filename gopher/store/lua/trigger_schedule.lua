#!lua flags=allow-oom
-- Makes a job of a schedule now, beside its times; the overlap policy holds.
-- KEYS[1] settings of the queue
-- ARGV[1] name of the schedule
-- ARGV[2] id for the job
-- ARGV[3] its labels, JSON
-- Returns: {FIRED, id of the job}, {SKIPPED, id of the job in the way} or {NOT_FOUND}
-- Moves: none -> enqueued; of the job before: scheduled | enqueued | retrying -> cancelled; processing -> processing
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/schedule.lua
local name, id, labels = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
local known = redis.call('hmget', schedule_key(name), 'overlap', 'last_job')

if not known[1] then
  return {'NOT_FOUND'}
end
local answer = fire(name, known[1], known[2], id, labels, now)
wake_workers()
publish_changes(now)
return answer
