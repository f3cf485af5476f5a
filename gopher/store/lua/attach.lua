#!lua flags=allow-oom
-- Ties ids to the life of a client: what is not attached again in time is ended by the reaper, a job and what is in its family.
-- KEYS[1] settings of the queue
-- ARGV[1] how long they stand unless they are attached again, ms
-- ARGV[2] new, or again: only those that still stand
-- ARGV[3..] an id, of a job, to be submitted or not, or of a client's nursery
-- Returns: {OK, each id that stands no more...}
-- Moves: none
-- include: lib/now.lua
-- include: lib/queue.lua
local lease_ms, is_new = tonumber(ARGV[1]), ARGV[2] == 'new'
local attached_key = base .. 'attached'
local expiry = now_ms() + lease_ms
local reply = {'OK'}

for i = 3, #ARGV do
  if is_new or redis.call('zscore', attached_key, ARGV[i]) then
    redis.call('zadd', attached_key, expiry, ARGV[i])
  else
    reply[#reply + 1] = ARGV[i]
  end
end
return reply
