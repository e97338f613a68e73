-- Says what a delivery is to do about its result: take it, generate it, or wait for who does.
-- ARGV: digest, task id, lease of the lead in ms, whether the leader may adopt the task (1) or not (0)
-- Returns: {'hit', now, result} {'lead' (from now on) | 'leads' (as before), now} {'follow', now}
local digest, id, now = ARGV[1], ARGV[2], now_ms()
local result = redis.call('GET', RESULTS .. digest)
if result then return { 'hit', integer(now), result } end
local leader = redis.call('GET', LEADS .. digest)
local followers = FOLLOWERS .. digest
if not leader or leader == id then
  redis.call('SET', LEADS .. digest, id, 'PX', ARGV[3])
  redis.call('ZREM', followers, id)
  return { leader and 'leads' or 'lead', integer(now) }
end
if ARGV[4] == '1' then
  redis.call('ZADD', followers, integer(now), id)
  redis.call('PEXPIRE', followers, FOLLOWERS_MS)
end
return { 'follow', integer(now) }
