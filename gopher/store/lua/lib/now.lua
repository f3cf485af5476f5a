-- The moment of this script call: ms since the epoch by the clock of Redis, one clock for all workers.
local function now_ms()
  local time = redis.call('time')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
