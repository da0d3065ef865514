-- Before every script. Redis' own clock, in ms: nodes' clocks may differ.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Whether a node (name and life) beats; asked once per script and node.
local beats = {}
local function alive(node)
  if beats[node] == nil then
    beats[node] = redis.call('EXISTS', 'node:' .. node) == 1
  end
  return beats[node]
end

-- The devices of a user's entries ("device|node") that have not expired and whose node lives,
-- each once; stops at `limit`. Longest to live first, and at most 1,000 are looked at.
local function live_devices(key, limit)
  local entries = redis.call('ZREVRANGEBYSCORE', key, '+inf', '(' .. now, 'LIMIT', 0, 1000)
  local devices, seen = {}, {}
  for _, entry in ipairs(entries) do
    local device, node = string.match(entry, '^(.-)|(.*)$')
    if device and not seen[device] and alive(node) then
      seen[device] = true
      devices[#devices + 1] = device
      if #devices == limit then
        break
      end
    end
  end
  return devices
end

-- Puts an entry of a user, whose key lives as long as its latest entry.
local function put(key, entry, ttl)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  redis.call('ZADD', key, now + ttl, entry)
  redis.call('PEXPIRE', key, ttl)
end
