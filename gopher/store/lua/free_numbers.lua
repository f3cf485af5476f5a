#!lua flags=allow-oom
-- Takes the names of queues off the list; their numbers are kept for them for a while, and then may be given to others.
-- KEYS[1] queues of the namespace, as name_queue.lua has them
-- ARGV[1] how long a number is kept, ms
-- ARGV[2..] name of a queue, or ~number of one that was freed before
-- Returns: {OK}
-- Moves: none
-- include: lib/now.lua
local kept_ms = tonumber(ARGV[1])
local now = now_ms()

for at = 2, #ARGV do
  local field = ARGV[at]
  local value = redis.call('hget', KEYS[1], field)
  if value and string.sub(field, 1, 1) ~= '~' then
    redis.call('hset', KEYS[1], '~' .. value, string.format('%d', now))
    redis.call('hdel', KEYS[1], field)
  elseif value and now - value >= kept_ms then
    redis.call('hdel', KEYS[1], field, '#' .. string.sub(field, 2))
  end
end
return {'OK'}
