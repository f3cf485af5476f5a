#!lua flags=allow-oom
-- Has claims ask what holds jobs back again, now: it may let some start.
-- KEYS[1] settings of the queue
-- ARGV[1..] names, KIND:TYPE or KIND:TYPE:KEY
-- Returns: {OK}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/parked.lua
local now = now_ms()

for _, by in ipairs(ARGV) do
  ask_again(by, now)
end
wake_workers()
return {'OK'}
