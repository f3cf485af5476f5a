#!lua flags=allow-oom
-- Keeps how far a running attempt has come, and tells its watchers.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the job
-- ARGV[2] token
-- ARGV[3] progress, 0 to 1
-- ARGV[4] text beside it
-- Returns: {OK}, {STALE_LEASE} or {NOT_FOUND}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
local id, token, progress, text = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local job = redis.call('hmget', job_key(id), 'state', 'token', 'attempt')

if not job[1] then
  return {'NOT_FOUND'}
end
if job[1] ~= 'processing' or job[2] ~= token then
  return {'STALE_LEASE'}
end
redis.call('hset', job_key(id), 'progress', progress, 'progress_message', text)
note_change(id, 'processing', job[3], 'progress ' .. progress .. ' ' .. string.gsub(text, '\n', ' '))
publish_changes(now_ms())
return {'OK'}
