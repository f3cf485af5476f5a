#!lua flags=allow-oom
-- Takes up the bulk operation that has waited longest, with a lease.
-- KEYS[1] bulk operations that run, of all namespaces: `namespace id` by the moment from which anyone may take them up, ms
-- ARGV[1] lease, ms
-- ARGV[2] how long its record is kept from now on, ms
-- Returns: {OK, namespace, id, token, {field, value, ...}} or {NONE, ms until one may be taken up; -1 when none runs}
-- Moves: none
-- include: lib/now.lua
-- include: lib/numbers.lua
local running_key, lease_ms, kept_ms = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local base = string.sub(running_key, 1, -8) .. 'of:'
local now = now_ms()
local head = redis.call('zrange', running_key, 0, 0, 'withscores')

while head[1] and tonumber(head[2]) <= now do
  local namespace, id = string.match(head[1], '^(%S+) (%S+)$')
  local record_key = base .. namespace .. ':' .. id
  if redis.call('hget', record_key, 'state') == 'running' then
    redis.call('zadd', running_key, now + lease_ms, head[1])
    local token = take_numbers(record_key, 'token', 1, now) + 1
    redis.call('pexpire', record_key, kept_ms)
    redis.call('pexpire', base .. namespace, kept_ms)
    return {'OK', namespace, id, token, redis.call('hgetall', record_key)}
  end
  -- Its record is gone, or its end was cut short: nothing is left to do.
  redis.call('zrem', running_key, head[1])
  head = redis.call('zrange', running_key, 0, 0, 'withscores')
end
return {'NONE', head[1] and tonumber(head[2]) - now or -1}
