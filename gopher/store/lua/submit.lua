#!lua
-- Stores new jobs, each scheduled or enqueued at once.
-- KEYS[1] settings of the queue
-- ARGV[1] how long a request id is remembered, ms
-- ARGV[2..] a job: id, priority, '' or x, of x also run_ms or '', delay_ms or '', deadline_ms or '', unique_key or '', request_id or
--   '', fingerprint of the body or ''; then the count of what follows, field, value, field, value...
-- Returns: a list, an entry a job: its state when it was stored, else {DUPLICATE, id of the first, state},
--   {REQUEST_ID_CONFLICT, id of the first} or {UNIQUE_HELD, id of the holder}; or {UNNAMED} where nothing was stored, since the
--   queue has not the number that the ids carry
-- Moves: none -> scheduled | enqueued
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/submit.lua
if not is_named(ARGV[2]) then
  return {'UNNAMED'}
end
local now = now_ms()
local replies = submit_jobs(ARGV, 2, now, ARGV[1])
wake_workers()
publish_changes(now)
return replies
