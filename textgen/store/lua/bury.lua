-- Writes a FAILED record for an id that has no task: a message that could not become one.
-- ARGV: record, ttl in ms. Returns 1 if it was written.
if redis.call('EXISTS', state) == 1 then return { 'exists', integer(now_ms()) } end
local now, ttl = now_ms(), natural(ARGV[2])
redis.call('HSET', state, 'status', 'FAILED', 'attempt', 0, 'failures', 0, 'rev', 1, 'ttl', ARGV[2],
  'deadline', integer(now))
write(ARGV[1], 'created_at updated_at finished_at deadline', iso(now), now + ttl)
emit('0', 'state', 'status', 'FAILED', 'at', iso(now))
keep(now, ttl)
return { 'buried', integer(now) }
