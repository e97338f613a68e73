-- Takes or renews a leadership lease. KEYS: the lease. ARGV: name, lease in ms. Returns 1 if held.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
