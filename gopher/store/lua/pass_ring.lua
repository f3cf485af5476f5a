#!lua flags=allow-oom
-- Rings another worker, for one that was rung and has no room.
-- KEYS[1] settings of the queue
-- ARGV[1..] the types that it was rung for; '' for any
-- Returns: {OK}
-- Moves: none
-- include: lib/queue.lua
for _, type in ipairs(ARGV) do
  note_waiting(type)
end
wake_workers()
return {'OK'}
