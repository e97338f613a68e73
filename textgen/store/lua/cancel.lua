-- Asks for a cancel: from here on no attempt can begin, append or finish. Whoever asked then reads
-- the log, which no longer changes, and writes the terminal record by a transition.
-- Returns: {'absent', now} or {'ended' | 'flagged', now, record}
local now = now_ms()
local status = redis.call('HGET', state, 'status')
if not status then return { 'absent', integer(now) } end
local word = 'ended'
if not TERMINAL[status] then
  redis.call('HSET', state, 'cancel', 1)
  word = 'flagged'
end
return { word, integer(now), redis.call('GET', record) or '' }
