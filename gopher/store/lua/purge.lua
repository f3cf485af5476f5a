#!lua flags=allow-oom
-- Removes waiting jobs of a queue, some a call.
-- KEYS[1] settings of the queue
-- ARGV[1] how many at most
-- Returns: {OK, how many were removed}; call again until it is 0
-- Moves: scheduled | enqueued | retrying -> none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
local limit = tonumber(ARGV[1])
local removed = 0

for _, index in ipairs({'scheduled', 'retrying', 'enqueued:high', 'enqueued:normal', 'enqueued:low'}) do
  local ids = removed < limit and redis.call('zrange', base .. index, 0, limit - removed - 1) or {}
  for _, id in ipairs(ids) do
    local job = read_job(id)
    -- A record that says otherwise belongs to another index; only the entry goes.
    if job and waiting_index(job) == base .. index then
      release_unique(id, job.unique_key)
      redis.call('unlink', job_key(id))
      redis.call('zrem', deadlines_key, id)
      note_change(id, 'deleted', job.attempt)
    end
  end
  if #ids > 0 then
    redis.call('zrem', base .. index, unpack(ids))
    removed = removed + #ids
  end
end
publish_changes(now_ms())
return {'OK', removed}
