-- Removes a member of a sorted set unless it was given another score since it was read.
-- KEYS: the set. ARGV: member, score as read.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
