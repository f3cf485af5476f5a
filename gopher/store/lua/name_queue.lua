#!lua flags=allow-oom
-- Gives a queue its number, which is never used again; the ids of its jobs carry it. In a full Redis too: a worker that starts there
-- drains it.
-- KEYS[1] queues of the namespace: name -> number, #number -> name
-- ARGV[1] name of the queue
-- Returns: {OK, number} or {TOO_MANY_QUEUES}
-- Moves: none
local name = ARGV[1]
local known = redis.call('hget', KEYS[1], name)

if known then
  return {'OK', tonumber(known)}
end
local number = redis.call('hlen', KEYS[1]) / 2
if number > 65535 then
  return {'TOO_MANY_QUEUES'}
end
redis.call('hset', KEYS[1], name, number, '#' .. number, name)
return {'OK', number}
