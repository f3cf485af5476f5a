-- The jobs that a completed attempt has submitted: needs lib/queue.lua.
-- include: lib/submit.lua

-- Keeps the children of an attempt, as they stand in ARGV: id, entry, id, entry... Until its outcome is written they do not count.
local function keep_children(first, last)
  redis.call('hset', outbox_key, unpack(ARGV, first, last))
end

-- Puts the words that an entry holds behind others: the lengths of all stand in its first line.
local function add_words(words, entry)
  local head = string.find(entry, '\n', 1, true)
  local at = head + 1
  local lengths = string.match(string.sub(entry, 1, head - 1), '^%S+ %S+ %S+ (.*)$')
  for length in string.gmatch(lengths, '%d+') do
    words[#words + 1] = string.sub(entry, at, at + length - 1)
    at = at + length
  end
end

-- Stores children whose own queue this is; returns those that were refused, a reason each.
local function store_children(ids, entries, now)
  local words, refusals = {}, {}
  for _, entry in ipairs(entries) do
    add_words(words, entry)
  end
  -- No child has a request id, so none is remembered for any time.
  local replies = submit_jobs(words, 1, now, 0)
  for place, reply in ipairs(replies) do
    if type(reply) == 'table' and reply[1] ~= 'DUPLICATE' then
      refusals[#refusals + 1] = {ids[place], reply[1], reply[2]}
    end
  end
  redis.call('hdel', outbox_key, unpack(ids))
  return refusals
end
