#!lua flags=allow-oom
-- Sets the rules of a queue's limits: `count ms burst` of starts, the same of each key, then how many at once, and of each key.
-- KEYS[1] settings of the queue
-- ARGV[1..] a rule: TYPE, declared:TYPE or *; the eight numbers, or '' for no rule
-- Returns: {OK, each of these names whose rule was another before...}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/parked.lua
local limits_key = base .. 'limits'
local now = now_ms()
local reply = {'OK'}

for at = 1, #ARGV, 2 do
  local name, rule = ARGV[at], ARGV[at + 1]
  if (redis.call('hget', limits_key, name) or '') ~= rule then
    reply[#reply + 1] = name
    if rule == '' then
      redis.call('hdel', limits_key, name)
    else
      redis.call('hset', limits_key, name, rule)
    end
  end
end
-- Most workers declare what is known, and then nothing that is held back could start.
if #reply == 1 then
  return reply
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
return reply
