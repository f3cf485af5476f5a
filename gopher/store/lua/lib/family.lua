-- The children that attempts have started in nurseries: a hash a parent, `token.nursery.number` -> `id policy fingerprint`. Needs
-- lib/queue.lua.
local orphans_key = base .. 'orphans'

local function family_key(id)
  return base .. 'family:' .. id
end

-- Has the children looked after whose parent's attempt has ended without them; a parent that has ended well has none any more.
local function orphan(id, now)
  redis.call('zadd', orphans_key, now, id)
  redis.call('spublish', base .. 'control', 'orphans')
end
