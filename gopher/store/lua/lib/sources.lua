-- Where a claim takes jobs from, and which of them its worker has handlers for: needs lib/limits.lua.
local LEVELS = {h = 'high', n = 'normal', l = 'low'}
-- A call looks at so many jobs more than it takes; chosen, to keep it near 1 ms.
local LOOKAHEAD = 100
-- And at so many jobs of a breaker that it does not declare; chosen, since most breakers guard one type or few.
local HEADS = 16

-- Whether the worker has a type, or declares a breaker.
local served = {}
local function serves(digest, name)
  if served[name] == nil then
    served[name] = digest == '*' or redis.call('sismember', types_key(digest), name) == 1
  end
  return served[name]
end

-- The types of the jobs that are held back, where the worker has none of them: of a breaker, which may guard several, those of the
-- first jobs in its lines.
local function foreign_types(digest, by)
  local kind, type = string.match(by, '^(%a+):([^:]+)')
  if type == '*' or serves(digest, kind == 'breaker' and by or type) then
    return nil
  elseif kind ~= 'breaker' then
    return {type}
  end
  local types, met = {}, {}
  for _, level in pairs(LEVELS) do
    for _, id in ipairs(redis.call('zrange', parked_index(by, level), 0, HEADS - 1)) do
      type = redis.call('hget', job_key(id), 'type')
      if type and serves(digest, type) then
        return nil
      elseif type and not met[type] then
        met[type] = true
        types[#types + 1] = type
      end
    end
  end
  return types[1] and types
end

-- Where jobs may be taken from: for each letter the parked lines whose limits are to be asked again, which hold the older jobs,
-- then the line itself and with it those of the worker's types that others lack, in the order in which their jobs came. `at` is how
-- far a source was used up.
local sources = {h = {}, n = {}, l = {}}
local function add_source(letter, key, by, count, is_merged)
  local ids, scores = {}, nil
  if count > 0 and is_merged then
    local found = redis.call('zrange', key, 0, count - 1, 'withscores')
    scores = {}
    for i = 1, #found, 2 do
      ids[#ids + 1] = found[i]
      scores[#scores + 1] = tonumber(found[i + 1])
    end
  elseif count > 0 then
    ids = redis.call('zrange', key, 0, count - 1)
  end
  if ids[1] then
    table.insert(sources[letter], {key = key, by = by, ids = ids, scores = scores, at = 0, is_cut = #ids == count})
  end
end

-- Where jobs of other workers' types have stood in a line, more of it is read: they must not keep the worker from its own behind them.
local foreign = {}
local function read_on(source)
  if source.by or not source.is_cut or not next(foreign) then
    return false
  end
  local before = #source.ids
  local found = redis.call('zrange', source.key, before, before + LOOKAHEAD - 1, 'withscores')
  for i = 1, #found, 2 do
    table.insert(source.ids, found[i])
    if source.scores then
      table.insert(source.scores, tonumber(found[i + 1]))
    end
  end
  source.is_cut = #found == 2 * LOOKAHEAD
  return #found > 0
end

local function source_of(letter, now)
  local oldest
  for _, source in ipairs(sources[letter]) do
    local has_next = source.at < #source.ids or read_on(source)
    if has_next and not (source.by and room_of(source.by, now).left <= 0) then
      if not source.scores then
        return source
      elseif not oldest or source.scores[source.at + 1] < oldest.scores[oldest.at + 1] then
        oldest = source
      end
    end
  end
  return oldest
end
