#!lua flags=allow-oom
-- Replaces what the author of a schedule says; what it has done and whether it is paused stay.
-- KEYS[1] settings of the queue
-- ARGV[1] name of the schedule
-- ARGV[2] when it fires next, ms
-- ARGV[3] when that is due, ms
-- ARGV[4..] field, value, field, value...
-- Returns: {OK} or {NOT_FOUND}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/schedule.lua
local name = ARGV[1]
local record = redis.call('hgetall', schedule_key(name))

if #record == 0 then
  return {'NOT_FOUND'}
end
local is_paused = redis.call('hexists', schedule_key(name), 'paused') == 1
local given, dropped = {}, {}
for i = 4, #ARGV, 2 do
  given[ARGV[i]] = true
end
for i = 1, #record, 2 do
  -- Fields of the job may come and go; all others are always given.
  if string.sub(record[i], 1, 4) == 'job:' and not given[record[i]] then
    dropped[#dropped + 1] = record[i]
  end
end
put_due(name, is_paused and '' or ARGV[3])
local now = now_ms()
redis.call('hset', schedule_key(name), 'updated_ms', now, 'revision', new_revision(now), 'next_ms', ARGV[2],
  'due_ms', ARGV[3], unpack(ARGV, 4))
if #dropped > 0 then
  redis.call('hdel', schedule_key(name), unpack(dropped))
end
return {'OK'}
