-- KEYS: online and last_seen of each user, in turn.
-- Returns for each whether a device is live, and when one was last seen in ms, 0 for unknown.
local answer = {}
for i = 1, #KEYS, 2 do
  answer[i] = #live_devices(KEYS[i], 1)
  answer[i + 1] = tonumber(redis.call('GET', KEYS[i + 1]) or 0)
end
return answer
