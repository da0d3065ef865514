-- KEYS: online. Returns the live entries ("device|node"), at most 1,000 are looked at.
local entries = redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', '(' .. now, 'LIMIT', 0, 1000)
local live = {}
for _, entry in ipairs(entries) do
  local node = string.match(entry, '^.-|(.*)$')
  if node and alive(node) then
    live[#live + 1] = entry
  end
end
return live
