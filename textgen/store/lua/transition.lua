-- Ends an attempt or a task: to PENDING for another attempt, or to a terminal status for good.
-- ARGV: guard ('token': the attempt itself; 'rev': an outsider who read this revision; 'lapsed': an
--       outsider, and only while nobody renews the lease), its value, status, record, stamps,
--       failures so far, due in ms from now, reason why the attempt's text is void, usage or '',
--       what a webhook is told: id or '', head, short record or ''
-- Returns: {'ok' | 'absent' | 'ended' | 'fenced' | 'cancelled' | 'moved' | 'alive', now, record}
local now = now_ms()
local guard, to = ARGV[1], ARGV[3]
local fields = redis.call('HMGET', state, 'status', 'token', 'rev', 'lease', 'cancel', 'attempt',
  'deadline', 'ttl', 'tokens')
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
local at = iso(now)
redis.call('HSET', state, 'status', to, 'failures', ARGV[6])
redis.call('HINCRBY', state, 'rev', 1)
redis.call('HDEL', state, 'token', 'lease', 'worker')
local deadline, ttl = tonumber(fields[7]), tonumber(fields[8])
if to == 'PENDING' then
  local due = tonumber(ARGV[7])
  redis.call('HSET', state, 'due', due > 0 and integer(now + due) or 0)
  local whole = write(ARGV[4], ARGV[5], at, deadline + ttl + STATE_MARGIN_MS)
  if tonumber(fields[9] or '0') > 0 then emit(attempt, 'reset', 'reason', ARGV[8]) end
  emit(attempt, 'state', 'status', to, 'at', at)
  keep(deadline, ttl)
  return { 'ok', integer(now), whole }
end
redis.call('HDEL', state, 'envelope', 'due')
local whole = write(ARGV[4], ARGV[5], at, now + ttl)
tell(ARGV[10], ARGV[11], ARGV[12], whole, ARGV[5], at, now)
if ARGV[9] ~= '' then emit(attempt, 'usage', 'usage', ARGV[9]) end
emit(attempt, 'state', 'status', to, 'at', at)
redis.call('PEXPIREAT', events, integer(now + ttl))
redis.call('PEXPIREAT', state, integer(math.max(deadline, now + ttl) + STATE_MARGIN_MS))
return { 'ok', integer(now), whole }
