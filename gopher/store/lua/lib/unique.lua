-- Who holds a unique key: needs lib/queue.lua.
local function unique_index(unique)
  return base .. 'unique:' .. unique
end

-- The job that holds a key. One that is final or gone holds nothing: its script was cut short before it let go.
local function unique_holder(unique)
  local id = redis.call('get', unique_index(unique))
  local state = id and redis.call('hget', job_key(id), 'state')
  if state and state ~= 'completed' and state ~= 'failed' and state ~= 'cancelled' then
    return id
  end
  return nil
end

local function release_unique(id, unique)
  if unique and redis.call('get', unique_index(unique)) == id then
    redis.call('del', unique_index(unique))
  end
end
