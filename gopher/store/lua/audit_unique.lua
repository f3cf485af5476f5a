#!lua flags=allow-oom
-- Proves of some unique keys that each is held by a job that has not ended, and frees those that are not.
-- KEYS[1] settings of the queue
-- ARGV[1] 1 to mend, 0 to look
-- ARGV[2..] unique keys
-- Returns: {{kind, id of the holder, detail, 1 if mended or 0}, ...}
-- Moves: none
-- include: lib/queue.lua
-- include: lib/unique.lua
local mends = ARGV[1] == '1'
local reply = {}

for at = 2, #ARGV do
  local unique = ARGV[at]
  local id = redis.call('get', unique_index(unique))
  if id and not (unique_holder(unique) and redis.call('hget', job_key(id), 'unique_key') == unique) then
    if mends then
      redis.call('del', unique_index(unique))
    end
    reply[#reply + 1] = {'UNIQUE_LEAK', id, 'holds the unique key ' .. unique .. ' though it has ended or is not its job',
      mends and 1 or 0}
  end
end
return reply
