#!lua flags=allow-oom
-- Makes a bulk operation, which a server then takes up, and forgets the oldest that have ended.
-- KEYS[1] bulk operations that run, of all namespaces: `namespace id` by the moment from which anyone may take them up, ms
-- KEYS[2] bulk operations of the namespace: id by the moment of its start, ms
-- KEYS[3] record of the operation
-- ARGV[1] namespace and id of the operation, with a space in between
-- ARGV[2] id of the operation
-- ARGV[3] how many may run in a namespace
-- ARGV[4] how many are kept of a namespace, more than may run
-- ARGV[5] how long a record is kept, ms
-- ARGV[6..] name or value of a field of the record
-- Returns: {OK} or {TOO_MANY}
-- Moves: none
-- include: lib/now.lua
local running_key, kept_key, record_key = KEYS[1], KEYS[2], KEYS[3]
local member, id, most_running, most_kept, kept_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local now = now_ms()
local running, kept, forgotten = 0, 0, {}
local ids = redis.call('zrange', kept_key, 0, -1)

for i = #ids, 1, -1 do
  local state = redis.call('hget', kept_key .. ':' .. ids[i], 'state')
  if state == 'running' then
    running = running + 1
  end
  if state and (state == 'running' or kept < most_kept - 1) then
    kept = kept + 1
  else
    forgotten[#forgotten + 1] = ids[i]
  end
end
if running >= most_running then
  return {'TOO_MANY'}
end
redis.call('hset', record_key, 'state', 'running', 'created_ms', now, 'token', 0, unpack(ARGV, 6))
redis.call('pexpire', record_key, kept_ms)
redis.call('zadd', kept_key, now, id)
redis.call('pexpire', kept_key, kept_ms)
-- Not before the next ms: what the operation itself moves is told from the rest by a later moment.
redis.call('zadd', running_key, now + 1, member)
for _, old in ipairs(forgotten) do
  redis.call('unlink', kept_key .. ':' .. old)
  redis.call('zrem', kept_key, old)
end
redis.call('spublish', string.sub(running_key, 1, -8) .. 'started', member)
return {'OK'}
