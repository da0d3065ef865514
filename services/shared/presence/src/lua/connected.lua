-- KEYS: online, last_seen. ARGV: entry, its ttl in ms, last_seen's ttl in ms.
-- Returns 1 when no device of the user was live before.
local first = #live_devices(KEYS[1], 1) == 0
put(KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], now, 'PX', ARGV[3])
return first and 1 or 0
