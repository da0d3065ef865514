-- KEYS: typing. ARGV: most users to return. Returns the users who type, each once, those who
-- began or went on last first.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local users, seen = {}, {}
for _, entry in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
  local user = string.match(entry, '^(.-)|')
  if user and not seen[user] then
    seen[user] = true
    users[#users + 1] = user
    if #users == tonumber(ARGV[1]) then
      break
    end
  end
end
return users
