#!lua flags=allow-oom
-- Removes a job that is not processing.
-- KEYS[1] settings of the queue
-- ARGV[1] id of the job
-- Returns: {OK}, {NOT_FOUND} or {STATE, state}
-- Moves: any state but processing -> none
-- include: lib/now.lua
-- include: lib/queue.lua
-- include: lib/final.lua
-- include: lib/delete.lua
local id = ARGV[1]
local job = read_job(id)

if not job then
  return {'NOT_FOUND'}
end
if job.state == 'processing' then
  return {'STATE', job.state}
end
delete_job(id, job)
publish_changes(now_ms())
return {'OK'}
