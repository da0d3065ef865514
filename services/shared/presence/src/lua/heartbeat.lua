-- KEYS: the node's life. ARGV: its time to live in ms. Answers whether it lived already.
-- Not SET ... GET, which takes no GET before Redis 6.2.
local before = redis.call('EXISTS', KEYS[1])
redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])
return before
