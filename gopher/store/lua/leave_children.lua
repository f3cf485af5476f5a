#!lua flags=allow-oom
-- Takes children out of the family of an attempt: they have ended, or are to go on alone.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the parent
-- ARGV[2] reservation of take_orphans.lua that is over, or ''
-- ARGV[3..] a place
-- Returns: {OK}
-- Moves: none
-- include: lib/queue.lua
-- include: lib/family.lua
local id, reservation = ARGV[1], ARGV[2]

if ARGV[3] then
  redis.call('hdel', family_key(id), unpack(ARGV, 3))
end
-- Not where the parent was orphaned again meanwhile.
if reservation ~= '' and redis.call('zscore', orphans_key, id) == reservation then
  redis.call('zrem', orphans_key, id)
end
if redis.call('exists', family_key(id)) == 0 and redis.call('hexists', job_key(id), 'family') == 1 then
  redis.call('hdel', job_key(id), 'family')
end
return {'OK'}
