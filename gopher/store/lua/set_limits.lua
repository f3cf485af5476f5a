#!lua flags=allow-oom
-- Sets the rules of a queue's limits: `count ms burst` of starts, the same of each key, then how many at once, and of each key.
-- KEYS[1] settings of the queue
-- ARGV[1..] a rule: TYPE, declared:TYPE or *; the eight numbers, or '' for no rule
-- Returns: {OK}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/parked.lua
local limits_key = base .. 'limits'
local now = now_ms()

for at = 1, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('hdel', limits_key, ARGV[at])
  else
    redis.call('hset', limits_key, ARGV[at], ARGV[at + 1])
  end
end
-- So that a claim in a queue without limits reads nothing more.
if redis.call('exists', limits_key) == 1 then
  redis.call('hset', settings_key, 'limited', '1')
else
  redis.call('hdel', settings_key, 'limited')
end
for _, by in ipairs({'rate:*', 'concurrency:*'}) do
  ask_again(by, now)
end
wake_workers()
return {'OK'}
