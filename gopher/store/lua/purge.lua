#!lua flags=allow-oom
-- Removes waiting jobs of a queue, some a call.
-- KEYS[1] settings of the queue
-- ARGV[1] how many at most
-- Returns: {OK, how many were removed, 1 if there may be more}
-- Moves: scheduled | enqueued | retrying -> none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
local limit = tonumber(ARGV[1])
local removed = 0

local function remove_from(index)
  local ids = removed < limit and redis.call('zrange', index, 0, limit - removed - 1) or {}
  for _, id in ipairs(ids) do
    local job = read_job(id)
    -- A record that says otherwise belongs to another index; only the entry goes.
    if job and waiting_index(job) == index then
      if job.family then
        orphan(id, now_ms())
      end
      release_unique(id, job.unique_key)
      unlink_job(id, job.history)
      redis.call('zrem', deadlines_key, id)
      if job.parked_by then
        redis.call('hincrby', counters_key, 'parked', -1)
      end
      note_change(id, 'deleted', job.attempt, nil, job.state)
    end
  end
  if #ids > 0 then
    redis.call('zrem', index, unpack(ids))
    removed = removed + #ids
  end
end

for _, name in ipairs({'scheduled', 'retrying', 'enqueued:high', 'enqueued:normal', 'enqueued:low'}) do
  remove_from(base .. name)
end
local held_back = redis.call('zrange', parked_key, 0, limit - 1)
for _, by in ipairs(held_back) do
  for _, priority in ipairs({'high', 'normal', 'low'}) do
    remove_from(parked_index(by, priority))
  end
  if removed < limit then
    for _, type in ipairs(redis.call('smembers', foreign_key)) do
      unleave(type, by)
    end
    redis.call('zrem', parked_key, by)
  end
end
publish_changes(now_ms())
return {'OK', removed, (removed == limit or #held_back == limit) and 1 or 0}
