-- KEYS: typing. ARGV: most entries to return. Returns who types, those who began or went on last
-- first, each with the ms that are left.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local found = redis.call('ZREVRANGE', KEYS[1], 0, ARGV[1] - 1, 'WITHSCORES')
local typists = {}
for i = 1, #found, 2 do
  typists[#typists + 1] = { found[i], found[i + 1] - now }
end
return typists
