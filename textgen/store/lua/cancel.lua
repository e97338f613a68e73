-- Asks for a cancel: from here on no attempt can begin, append or finish. Whoever asked then reads
-- the log, which no longer changes, and writes the terminal record by a transition.
-- Returns: {'absent' | 'ended' | 'flagged', now, record, rev, attempt, tokens, prompt tokens}
local now = now_ms()
local fields = redis.call('HMGET', state, 'status', 'rev', 'attempt', 'tokens', 'prompt_tokens')
if not fields[1] then return { 'absent', integer(now) } end
local word = 'ended'
if not TERMINAL[fields[1]] then
  redis.call('HSET', state, 'cancel', 1)
  word = 'flagged'
end
return { word, integer(now), redis.call('GET', record) or '', fields[2] or '0', fields[3] or '0',
  fields[4] or '0', fields[5] or '' }
