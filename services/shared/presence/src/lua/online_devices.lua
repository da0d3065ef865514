-- KEYS: online. Returns the live devices, each once.
return live_devices(KEYS[1], 1000)
