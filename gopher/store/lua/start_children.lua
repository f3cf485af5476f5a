#!lua
-- Starts children of a running attempt, or of an attached nursery: keeps them in its family, and stores at once those whose own queue this is.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the parent
-- ARGV[2] lease token of its attempt; 0 of a client's nursery
-- ARGV[3] where they stand in their lines, ms, as an earlier call of the same nursery has answered; '' for the first
-- ARGV[4] how many children there are
-- ARGV[5] how many children are taken over from an earlier attempt
-- ARGV[6..] of each child: place, `token.nursery.number`; record, `id policy fingerprint`; then the places that those taken over had;
--   then the jobs to store, as submit.lua takes them
-- Returns: {OK, where they stand, ms, an answer a job as submit.lua gives it...}, {STALE_LEASE}, {NOT_FOUND}, {UNNAMED} as submit.lua
--   has it or, of a client's nursery some of whose children another stream has started under other ids, {TAKEN, place, id, ...}
-- Moves: of children: none -> scheduled | enqueued
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/family.lua
-- include: lib/submit.lua
-- For how long the ids of children are remembered whose records are kept for less; REMEMBERED_MS in families.py.
local REMEMBERED_MS = 3600000
local id, token, line, count, adopted = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local now = now_ms()
local job = redis.call('hmget', job_key(id), 'state', 'token', 'family', 'line_ms', 'enqueued_ms', 'submitted_ms')

-- A client's nursery has no record, and its token is 0.
local is_client = not job[1] and token == '0' and redis.call('zscore', base .. 'attached', id)
if not job[1] and not is_client then
  return {'NOT_FOUND'}
end
if not is_client and (job[1] ~= 'processing' or job[2] ~= token) then
  return {'STALE_LEASE'}
end

if is_client then
  local places = {}
  for i = 1, count do
    places[i] = ARGV[4 + 2 * i]
  end
  local records = redis.call('hmget', family_key(id), unpack(places))
  local taken = {'TAKEN'}
  for i = 1, count do
    local child = records[i] and string.match(records[i], '^(%S+)')
    if child and child ~= string.match(ARGV[5 + 2 * i], '^(%S+)') then
      taken[#taken + 1], taken[#taken + 2] = places[i], child
    end
  end
  if #taken > 1 then
    return taken
  end
end

-- By steps of less than 1 ms in front of those that wait, but never by more than that before their parent's own place: so a tree is
-- finished before another is begun, and a branch before the next, or all parents of a wide tree would wait at once.
local STEP_MS, MOST_BEFORE_MS = 1 / 1024, 1 / 8
local function place_in_line()
  local place = now
  for _, priority in ipairs({'high', 'normal', 'low'}) do
    local head = redis.call('zrange', enqueued_key(priority), 0, 0, 'withscores')
    if head[2] then
      place = math.min(place, tonumber(head[2]) - STEP_MS)
    end
  end
  return math.max(place, tonumber(job[4] or job[5] or job[6] or now) - MOST_BEFORE_MS)
end

local first_left = 6 + 2 * count
local first_job = ARGV[first_left + adopted]
if first_job and not is_named(first_job) then
  return {'UNNAMED'}
end
line = line == '' and place_in_line() or tonumber(line)
-- The family comes first: cut short, it names a child that is not there, which harms nobody; the other way round one would be lost.
if job[1] and not job[3] then
  redis.call('hset', job_key(id), 'family', '1')
end
redis.call('hset', family_key(id), unpack(ARGV, 6, first_left - 1))
if adopted > 0 then
  redis.call('hdel', family_key(id), unpack(ARGV, first_left, first_left + adopted - 1))
end
local replies = submit_jobs(ARGV, first_left + adopted, now, REMEMBERED_MS, line)
wake_workers()
publish_changes(now)
return {'OK', string.format('%.17g', line), unpack(replies)}
