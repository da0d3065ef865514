-- KEYS: typing. ARGV: entry, ttl in ms, most entries of a chat.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
-- A chat where very many type at once shows some of them: the rest is not worth the memory.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  -- Another's entry may live longer than this one.
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
  end
end
