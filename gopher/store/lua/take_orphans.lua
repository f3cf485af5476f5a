#!lua flags=allow-oom
-- Reads children that nobody looks after any more, of one parent a call, and reserves that parent for the caller.
-- KEYS[1] settings of the queue
-- ARGV[1] parent to go on with, or '' for whichever has waited the longest
-- ARGV[2] where the walk through its family stands; 0 begins it
-- ARGV[3] how many at most, about
-- ARGV[4] how long the parent is the caller's alone, ms
-- Returns: {OK, id of the parent, where the walk goes on, or 0, the reservation, {place, id of a child to end, or ''}, ...} or {NONE}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/family.lua
local id, cursor, count, reserved_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local ADOPTED, DETACHED = {adopt = true, keep = true}, {detach = true, keep = true}
local FINAL = {completed = true, failed = true, cancelled = true}
local now = now_ms()

if id == '' then
  id = redis.call('zrange', orphans_key, '-inf', now, 'byscore', 'limit', 0, 1)[1]
  if not id then
    return {'NONE'}
  end
end
local reservation = now + reserved_ms
redis.call('zadd', orphans_key, reservation, id)
local job = redis.call('hmget', job_key(id), 'state', 'token')
local found = redis.call('hscan', family_key(id), cursor, 'count', count)
local reply = {'OK', id, found[1], reservation}

-- Those of the running attempt are its own. What may be adopted waits for the next one, if one follows.
local function is_orphan(place, record)
  local token = string.match(place, '^(%d+)%.')
  if job[1] == 'processing' and token == job[2] then
    return false
  end
  local policy = string.match(record, '^%S+ (%S+)')
  return not ADOPTED[policy] or not job[1] or FINAL[job[1]]
end

for i = 1, #found[2], 2 do
  if is_orphan(found[2][i], found[2][i + 1]) then
    local child, policy = string.match(found[2][i + 1], '^(%S+) (%S+)')
    reply[#reply + 1] = {found[2][i], DETACHED[policy] and '' or child or ''}
  end
end
return reply
