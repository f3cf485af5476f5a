#!lua flags=no-writes,allow-oom
-- Reads a stretch of an index, from behind the place where the last stretch ended; entries may have come and gone meanwhile.
-- KEYS[1] settings of the queue
-- ARGV[1] name of the index: a state, enqueued:PRIORITY or parked:BY:PRIORITY
-- ARGV[2] score of the last entry read, or '' to begin
-- ARGV[3] id of the last entry read
-- ARGV[4] how many at most
-- Returns: {id, score, id, score, ...}; shorter than asked for at the end of the index
-- Moves: none
-- include: lib/queue.lua
local index, score, id, count = base .. ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local first = 0

if score ~= '' then
  -- Equal scores are ordered by id: a binary search, since any number of jobs may have been enqueued in the same ms.
  first = redis.call('zcount', index, '-inf', '(' .. score)
  local last = redis.call('zcount', index, '-inf', score)
  while first < last do
    local middle = math.floor((first + last) / 2)
    if redis.call('zrange', index, middle, middle)[1] <= id then
      first = middle + 1
    else
      last = middle
    end
  end
end
return redis.call('zrange', index, first, first + count - 1, 'withscores')
