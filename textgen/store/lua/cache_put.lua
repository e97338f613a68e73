-- Keeps a result; the oldest make room for it.
-- ARGV: digest, result, ttl in ms, results at the most, bytes at the most
-- Returns: {'kept' | 'too large', now}
local digest, text, ttl, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), now_ms()
for _, expired in ipairs(redis.call('ZRANGEBYSCORE', INDEX, '-inf', integer(now), 'LIMIT', 0, 100)) do
  drop(expired)
end
drop(digest)
if #text > tonumber(ARGV[5]) then return { 'too large', integer(now) } end
redis.call('SET', RESULTS .. digest, text, 'PX', integer(ttl))
redis.call('ZADD', INDEX, integer(now + ttl), digest)
redis.call('HSET', SIZES, digest, #text)
local sum = redis.call('HINCRBY', SIZES, '#', #text)
while sum > tonumber(ARGV[5]) or redis.call('ZCARD', INDEX) > tonumber(ARGV[4]) do
  -- Where two are equally old, the one that was just put stays.
  local oldest = redis.call('ZRANGE', INDEX, 0, 1)
  drop(oldest[1] == digest and oldest[2] or oldest[1])
  sum = tonumber(redis.call('HGET', SIZES, '#'))
end
for _, name in ipairs({ INDEX, SIZES }) do
  if redis.call('PTTL', name) < ttl then redis.call('PEXPIRE', name, integer(ttl)) end
end
return { 'kept', integer(now) }
