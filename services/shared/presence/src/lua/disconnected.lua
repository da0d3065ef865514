-- KEYS: online, last_seen. ARGV: entry, last_seen's ttl in ms.
-- Returns 1 when no device of the user is live any more.
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], now, 'PX', ARGV[2])
return #live_devices(KEYS[1], 1) == 0 and 1 or 0
