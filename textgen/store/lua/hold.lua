-- Takes note that a task which waits is parked, so that nobody takes its message for lost.
-- ARGV: ms. Returns: {'held' | 'absent' | 'other', now}
local now = now_ms()
local fields = redis.call('HMGET', state, 'status', 'cancel', 'deadline')
if not fields[1] then return { 'absent', integer(now) } end
if fields[1] ~= 'PENDING' or fields[2] or now >= tonumber(fields[3]) then return { 'other', integer(now) } end
redis.call('HSET', state, 'parked', integer(now + tonumber(ARGV[1])))
return { 'held', integer(now) }
