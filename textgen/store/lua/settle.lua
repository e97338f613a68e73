-- Removes a member of a sorted set unless it was given another score since it was read.
-- KEYS: the set. ARGV: member, score as read.
-- Compared as numbers: one number is written in several ways.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) == tonumber(ARGV[2]) then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
