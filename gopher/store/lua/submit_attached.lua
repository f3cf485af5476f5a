#!lua
-- Stores a job that is tied to a call of a client from the start, or ties the one again that was stored before under its request id.
-- KEYS[1] settings of the queue
-- ARGV[1] how long a request id is remembered, ms
-- ARGV[2] how long it stands unless it is attached again, ms
-- ARGV[3] how long the call may last still, which bounds the job, ms; '' for as long as it likes
-- ARGV[4] id of the call
-- ARGV[5..] the job, as submit.lua takes one that has all its parts
-- Returns: {OK, id, state, 1 when it was there before}; {DETACHED, id} when the one that was there before is tied to no client;
--   {UNNAMED} as submit.lua has it; else as that refuses
-- Moves: none -> scheduled | enqueued
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/submit.lua
local request_ttl_ms, lease_ms, left_ms, call_id = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local words = {unpack(ARGV, 5)}
local attached_key = base .. 'attached'
local now = now_ms()
local own_id = words[1]
local FINAL = {completed = true, failed = true, cancelled = true}

if not is_named(own_id) then
  return {'UNNAMED'}
end
if left_ms then
  local bound = now + left_ms
  local own = tonumber(words[1 + DEADLINE_MS])
  if not own or bound < own then
    -- Of two values of a field the later one stays.
    words[1 + DEADLINE_MS] = string.format('%d', bound)
    words[1 + FULL_LENGTH] = tonumber(words[1 + FULL_LENGTH]) + 2
    words[#words + 1] = 'deadline_ms'
    words[#words + 1] = string.format('%d', bound)
  end
end

local function attach(id)
  redis.call('zadd', attached_key, now + lease_ms, id)
  redis.call('hset', job_key(id), 'attached_to', call_id)
end

-- Before the job, so that a script that is cut short leaves none that nobody would end.
redis.call('zadd', attached_key, now + lease_ms, own_id)
local replies = submit_jobs(words, 1, now, request_ttl_ms)
local reply = replies[1]
if type(reply) == 'string' then
  attach(own_id)
  wake_workers()
  publish_changes(now)
  return {'OK', own_id, reply, 0}
end
local id, state = reply[2], reply[3]
if id ~= own_id then
  redis.call('zrem', attached_key, own_id)
end
if reply[1] ~= 'DUPLICATE' then
  return reply
end
if FINAL[state] then
  redis.call('zrem', attached_key, id)
elseif redis.call('zscore', attached_key, id) then
  attach(id)
elseif not redis.call('hget', job_key(id), 'cancel_reason') then
  return {'DETACHED', id}
end
return {'OK', id, state, 1}
