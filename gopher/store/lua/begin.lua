#!lua flags=allow-oom
-- Notes that a handler is about to begin whose next crash would be the last of its job: without that the crash is not charged.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the job
-- ARGV[2] token of its lease
-- Returns: {OK} or {STALE_LEASE}: it must not begin
-- Moves: none
-- include: lib/queue.lua
local id, token = ARGV[1], ARGV[2]
local job = redis.call('hmget', job_key(id), 'state', 'token')
if job[1] ~= 'processing' or job[2] ~= token then
  return {'STALE_LEASE'}
end
redis.call('hset', job_key(id), 'begun', token)
return {'OK'}
