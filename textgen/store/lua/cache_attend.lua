-- Renews the lead of a task and takes followers out, the first ones first.
-- ARGV: digest, task id, lease of the lead in ms, followers at the most
-- Returns: {'lost', now} or {'leads', now, ids of followers…}
local digest, id, most, now = ARGV[1], ARGV[2], tonumber(ARGV[4]), now_ms()
local leader = redis.call('GET', LEADS .. digest)
if leader and leader ~= id then return { 'lost', integer(now) } end
redis.call('SET', LEADS .. digest, id, 'PX', ARGV[3])
local ids = most > 0 and redis.call('ZRANGE', FOLLOWERS .. digest, 0, most - 1) or {}
for _, follower in ipairs(ids) do redis.call('ZREM', FOLLOWERS .. digest, follower) end
return { 'leads', integer(now), unpack(ids) }
