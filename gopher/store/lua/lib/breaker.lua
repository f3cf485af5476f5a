-- How a breaker stands: a hash, and beside it the permits of the jobs that it lets run while it is not free, each by its end.
local key = KEYS[1]
local permits_key = KEYS[1] .. ':permits'

-- Failures in a row, each by its ms, of which those older than the window are forgotten.
local function read_streak(text, window_ms, now)
  local streak = {}
  for moment in string.gmatch(text or '', '%d+') do
    if tonumber(moment) > now - window_ms then
      streak[#streak + 1] = moment
    end
  end
  return streak
end

local function read_breaker(now)
  local values = redis.call('hmget', key, 'state', 'until_ms', 'streak', 'proven', 'forced', 'failures', 'window_ms', 'reset_ms', 'probes')
  local breaker = {state = values[1] or 'closed', until_ms = tonumber(values[2] or 0), is_proven = values[4] == '1', forced = values[5],
    failures = tonumber(values[6] or 1), window_ms = tonumber(values[7] or 0), reset_ms = tonumber(values[8] or 0),
    probes = tonumber(values[9] or 1)}
  breaker.streak = read_streak(values[3], breaker.window_ms, now)
  redis.call('zremrangebyscore', permits_key, '-inf', now)
  return breaker
end

-- Has the permits kept until the last of them ends.
local function keep_permits(now)
  local last = redis.call('zrange', permits_key, -1, -1, 'withscores')
  if last[2] then
    redis.call('pexpire', permits_key, string.format('%d', tonumber(last[2]) - now))
  end
end

local function is_free(breaker)
  return breaker.forced == 'closed' or (not breaker.forced and breaker.state == 'closed' and breaker.is_proven and #breaker.streak == 0)
end

-- What workers are told: state, until when it is open or -1, 1 if jobs need no permit, now.
local function view(breaker, now)
  local is_open = not breaker.forced and breaker.state == 'open'
  return {breaker.forced or breaker.state, is_open and breaker.until_ms or -1, is_free(breaker) and 1 or 0, now}
end

local function write_breaker(breaker, now)
  redis.call('hset', key, 'state', breaker.state, 'until_ms', breaker.until_ms, 'streak', table.concat(breaker.streak, ' '),
    'proven', breaker.is_proven and '1' or '0')
  redis.call('spublish', key .. ':events', table.concat(view(breaker, now), ' '))
end
