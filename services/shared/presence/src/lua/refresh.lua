-- KEYS: online and last_seen of each entry, in turn. ARGV: an entry's ttl in ms, last_seen's
-- ttl in ms, then the entries.
for i = 3, #ARGV do
  local online, last_seen = KEYS[2 * (i - 3) + 1], KEYS[2 * (i - 3) + 2]
  put(online, ARGV[i], ARGV[1])
  redis.call('SET', last_seen, now, 'PX', ARGV[2])
end
