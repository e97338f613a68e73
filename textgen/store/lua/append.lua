-- Adds text of the attempt that holds the token, and renews its lease. Without text it only renews.
-- ARGV: token, lease in ms, chunks added before this one, text, its tokens, tokens of the prompt or ''
-- Returns: {'ok' | 'absent' | 'fenced' | 'cancelled' | 'overdue', now}
--          {'behind', now}: Redis came back older than it was, and the log begins anew; all is to be added again
local now, lease, tokens = now_ms(), natural(ARGV[2]), natural(ARGV[5], TOKENS)
if ARGV[6] ~= '' then natural(ARGV[6], TOKENS) end
local fields = redis.call('HMGET', state, 'status', 'token', 'cancel', 'deadline', 'chunks', 'attempt',
  'seq')
local function answer(word)
  return { word, integer(now) }
end
if not fields[1] then return answer('absent') end
if fields[1] == 'CANCELLED' then return answer('cancelled') end
if fields[2] ~= ARGV[1] then return answer('fenced') end
if fields[3] then return answer('cancelled') end
if now >= tonumber(fields[4]) then return answer('overdue') end
redis.call('HSET', state, 'lease', integer(now + lease))
if ARGV[4] ~= '' and tonumber(ARGV[3]) > tonumber(fields[5]) then
  redis.call('HSET', state, 'chunks', 0, 'tokens', 0, 'seq', integer(math.max(tonumber(fields[7]), now)))
  emit(fields[6], 'reset', 'reason', 'log_lost')
  return answer('behind')
end
-- A repeated call whose first answer was lost must not add the text again.
if ARGV[4] ~= '' and fields[5] == ARGV[3] then
  emit(fields[6], 'chunk', 'text', ARGV[4])  -- first: where that breaks off, nothing counts as written
  redis.call('HINCRBY', state, 'chunks', 1)
  redis.call('HINCRBY', state, 'tokens', integer(tokens))
  if ARGV[6] ~= '' then redis.call('HSET', state, 'prompt_tokens', ARGV[6]) end
end
return answer('ok')
