#!lua flags=allow-oom
-- Opens the history of a job where it has none, which its worker is told; and tells in it what a call that was cut short has not told.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the job
-- Returns: {OK, number of the last event} or {NOT_FOUND}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
local id = ARGV[1]
local now = now_ms()
local job = redis.call('hmget', job_key(id), 'state', 'attempt', 'cancel_reason', 'history')

if not job[1] then
  return {'NOT_FOUND'}
end
local stand = history_of(id, job[4], now)
tell_event(stand, {id = id, kind = job[1] == 'processing' and job[3] and 'cancel_requested' or 'state', state = job[1], attempt = job[2] or '0'}, now)
if not job[4] and job[1] == 'processing' then
  redis.call('spublish', base .. 'control', 'watched ' .. id)
end
return {'OK', stand.seq}
