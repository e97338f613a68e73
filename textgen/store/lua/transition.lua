-- Ends an attempt or a task: to PENDING for another attempt, or to a terminal status for good.
-- ARGV: guard ('token': the attempt itself; 'rev': an outsider who read this revision; 'lapsed': an
--       outsider, and only while nobody renews the lease), its value, status, record, stamps,
--       failures so far, due in ms from now, reason why the attempt's text is void,
--       tokens of prompt and text of the attempt that ends ('': as they were appended),
--       nanodollars per token of prompt and text ('': not known),
--       what a webhook is told: id or '', head, short record or '' (both without usage),
--       of those tokens: how many of the prompt were cached, how many of the text were only thought;
--       nanodollars per cached token ('': not known),
--       whether the text was written for another task (1), so that this one used nothing of its own, or not (0)
-- The record comes without its usage, which is reckoned here: what an attempt has used is added to the
-- control fields in the step that ends it, once.
-- Returns: {'ok' | 'absent' | 'ended' | 'fenced' | 'cancelled' | 'moved' | 'alive', now, record}
local now = now_ms()
local guard, to = ARGV[1], ARGV[3]
local fields = redis.call('HMGET', state, 'status', 'token', 'rev', 'lease', 'cancel', 'attempt',
  'deadline', 'ttl', 'chunks', 'prompt_tokens', 'spent_nano', 'tokens')
local status, attempt = fields[1], fields[6]
local function answer(word)
  return { word, integer(now), redis.call('GET', record) or '' }
end
if not status then return { 'absent', integer(now), '' } end
if TERMINAL[status] then return answer('ended') end
if guard == 'token' then
  if fields[2] ~= ARGV[2] then return answer('fenced') end
  if fields[5] and to ~= 'CANCELLED' then return answer('cancelled') end
else
  if fields[3] ~= ARGV[2] then return answer('moved') end
  if guard == 'lapsed' and (status ~= 'PROCESSING' or tonumber(fields[4]) > now) then
    return answer('alive')
  end
end
local prompt, completion, cached, thought, nano, cost = 0, 0, 0, 0, fields[11], 0
if status == 'PROCESSING' then
  prompt = natural(ARGV[9] ~= '' and ARGV[9] or fields[10] or '0', TOKENS)
  completion = natural(ARGV[10] ~= '' and ARGV[10] or fields[12] or '0', TOKENS)
  cached, thought = math.min(natural(ARGV[16], TOKENS), prompt), natural(ARGV[17], TOKENS)
  if ARGV[11] ~= '' then
    cost = natural(math.floor((prompt - cached) * tonumber(ARGV[11]) + cached * tonumber(ARGV[18])
      + completion * tonumber(ARGV[12]) + 0.5))
  end
end
local deadline, ttl, due = natural(fields[7]), natural(fields[8]), natural(ARGV[7])
if prompt + completion > 0 then
  redis.call('HINCRBY', state, 'spent_prompt', integer(prompt))
  redis.call('HINCRBY', state, 'spent_completion', integer(completion))
  if ARGV[11] ~= '' then nano = integer(redis.call('HINCRBY', state, 'spent_nano', integer(cost))) end
end
if ARGV[19] == '1' then nano = integer(redis.call('HINCRBY', state, 'spent_nano', 0)) end
local at = iso(now)
redis.call('HSET', state, 'status', to, 'failures', ARGV[6])
redis.call('HINCRBY', state, 'rev', 1)
redis.call('HDEL', state, 'token', 'lease', 'worker')
if to == 'PENDING' then
  redis.call('HSET', state, 'due', due > 0 and integer(now + due) or 0)
  local whole = write(ARGV[4], ARGV[5], at, deadline + ttl + STATE_MARGIN_MS)
  if tonumber(fields[9] or '0') > 0 then emit(attempt, 'reset', 'reason', ARGV[8]) end
  emit(attempt, 'state', 'status', to, 'at', at)
  keep(deadline, ttl)
  return { 'ok', integer(now), whole }
end
redis.call('HDEL', state, 'envelope', 'due')
redis.call('HSET', state, 'ended', integer(now))
-- Tokens are those of the last attempt, dollars those of all.
local usage = 'null'
if prompt + completion > 0 or nano then
  usage = string.format('{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"cached_tokens":%d,'
    .. '"reasoning_tokens":%d,"cost_usd":%s}',
    prompt, completion, prompt + completion, cached, thought, nano and string.format('%.9f', tonumber(nano) / 1e9) or 'null')
end
local object = string.sub(ARGV[4], 1, -2) .. ',"usage":' .. usage .. '}'
local whole = write(object, ARGV[5], at, now + ttl)
local short = ARGV[15]
if short ~= '' then short = string.sub(short, 1, -2) .. ',"usage":' .. usage .. '}' end
tell(ARGV[13], ARGV[14], short, whole, ARGV[5], at, now)
if usage ~= 'null' then emit(attempt, 'usage', 'usage', usage) end
emit(attempt, 'state', 'status', to, 'at', at)
redis.call('PEXPIREAT', events, integer(now + ttl))
redis.call('PEXPIREAT', state, integer(math.max(deadline, now + ttl) + STATE_MARGIN_MS))
return { 'ok', integer(now), whole }
