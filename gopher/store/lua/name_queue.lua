#!lua flags=allow-oom
-- Gives a queue its number, which the ids of its jobs carry. In a full Redis too: a worker that starts there drains it.
-- KEYS[1] queues of the namespace: name -> number, #number -> name; of one that was freed ~number -> ms in place of its name
-- ARGV[1] name of the queue
-- ARGV[2] the number that it had before, where that is known; else ''
-- Returns: {OK, number} or {TOO_MANY_QUEUES}
-- Moves: none
local name, wanted = ARGV[1], tonumber(ARGV[2])
local NUMBERS = 65536
local known = redis.call('hget', KEYS[1], name)

if known then
  return {'OK', tonumber(known)}
end
-- All numbers are taken: found out without a look at each of them.
if redis.call('hlen', KEYS[1]) >= 2 * NUMBERS then
  return {'TOO_MANY_QUEUES'}
end
-- The search begins where the name says: so a name that was lost finds its number again, whichever comes back first, and what other
-- processes remember of it stays true.
local first = wanted or tonumber(string.sub(redis.sha1hex(name), 1, 4), 16)
for step = 0, NUMBERS - 1 do
  local number = (first + step) % NUMBERS
  local holder = redis.call('hget', KEYS[1], '#' .. number)
  if not holder or holder == name then
    redis.call('hset', KEYS[1], name, number, '#' .. number, name)
    redis.call('hdel', KEYS[1], '~' .. number)
    return {'OK', number}
  end
end
return {'TOO_MANY_QUEUES'}
