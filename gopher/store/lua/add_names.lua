#!lua flags=allow-oom
-- Makes names known for good: of breakers, or of namespaces. In a full Redis too, so that a worker which starts there can drain it.
-- KEYS[1] the names known, a set
-- ARGV[1..] names
-- Returns: {OK}
-- Moves: none
if ARGV[1] then
  redis.call('sadd', KEYS[1], unpack(ARGV))
end
return {'OK'}
