#!lua flags=allow-oom
-- Reads children that have still to be handed to their queues, and drops those of attempts that did not complete their job.
-- KEYS[1] settings of the queue
-- ARGV[1] where the walk stands; 0 begins it
-- ARGV[2] how many at most, about
-- Returns: {OK, where the walk goes on, or 0, {id of the child, entry}, ...}; where entries are large, some as {id of the child}
-- Moves: none
-- include: lib/queue.lua
local cursor, count = ARGV[1], ARGV[2]
local found = redis.call('hscan', outbox_key, cursor, 'count', count)
local reply, dropped = {'OK', found[1]}, {}
-- Chosen, as for a claim: a reply that takes more holds up the others on its connection.
local REPLY_BYTES, bytes = 4194304, 0

-- An entry is written before the outcome of its parent: what no outcome followed was cut short.
local function fate_of(entry)
  local parent, token = string.match(entry, '^(%S+) (%S+) %S+ %d+ %d+ %d+ %d+[%d ]*\n')
  if not parent then
    -- Damaged: it must not keep the others from being delivered.
    return 'drop'
  end
  local job = redis.call('hmget', job_key(parent), 'state', 'token')
  if not job[1] or (job[2] == token and job[1] == 'completed') then
    return 'deliver'
  end
  return job[2] == token and job[1] == 'processing' and 'wait' or 'drop'
end

for i = 1, #found[2], 2 do
  local fate = fate_of(found[2][i + 1])
  if fate == 'deliver' then
    reply[#reply + 1] = {found[2][i], bytes < REPLY_BYTES and found[2][i + 1] or nil}
    bytes = bytes + #found[2][i + 1]
  elseif fate == 'drop' then
    dropped[#dropped + 1] = found[2][i]
  end
end
if #dropped > 0 then
  redis.call('hdel', outbox_key, unpack(dropped))
end
return reply
