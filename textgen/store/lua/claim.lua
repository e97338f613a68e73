-- Begins an attempt: PENDING becomes PROCESSING under a new token and lease.
-- ARGV: token, worker, lease in ms, attempt expected so far, failures expected so far,
--       record as it is once claimed, deadline (absolute ms), ttl in ms, fingerprint, envelope,
--       queue until (absolute ms or 0), attempt time-out in s or 0, webhook or '',
--       what it is told: id or '', head, short record or ''
-- Returns: {'taken', now, record} {'busy', now, ms} {'ended', now, record}
--          {'moved' | 'lapsed' | 'expired' | 'stale' | 'cancelled', now, record, rev}
local now, lease, ttl = now_ms(), natural(ARGV[3]), natural(ARGV[8])
for _, place in ipairs({ 4, 5, 7, 11, 12 }) do natural(ARGV[place]) end
local fields = redis.call('HMGET', state, 'status', 'token', 'lease', 'due', 'attempt', 'failures',
  'deadline', 'cancel', 'rev', 'queue_until')
local status, attempt = fields[1], fields[5]
if not status then
  -- Redis lost the task and the caller still has all of it.
  if now >= tonumber(ARGV[7]) then return { 'expired', integer(now), '', '0' } end
  attempt, status = ARGV[4], 'PENDING'
  fields = { status, false, false, '0', attempt, ARGV[5], ARGV[7], false, '1', '0' }
  redis.call('HSET', state, 'status', status, 'attempt', attempt, 'failures', ARGV[5], 'rev', 1,
    'fingerprint', ARGV[9], 'deadline', ARGV[7], 'ttl', ARGV[8], 'due', 0, 'envelope', ARGV[10],
    'queue_until', ARGV[11], 'attempt_s', ARGV[12])
  if ARGV[13] ~= '' then redis.call('HSET', state, 'webhook', ARGV[13]) end
  -- The log may have been lost under its followers: ids go on growing, so that none of them is passed over.
  redis.call('HSET', state, 'seq', integer(now))
  emit(attempt, 'reset', 'reason', 'log_lost')
  emit(attempt, 'state', 'status', 'PENDING', 'at', iso(now))
end
local function answer(word)
  return { word, integer(now), redis.call('GET', record) or '', fields[9] }
end
if TERMINAL[status] then return answer('ended') end
if status == 'PROCESSING' and fields[2] == ARGV[1] then return answer('taken') end
if now >= tonumber(fields[7]) then return answer('expired') end
if fields[8] then return answer('cancelled') end
if status == 'PROCESSING' then
  if tonumber(fields[3]) > now then return { 'busy', integer(now), integer(fields[3] - now) } end
  return answer('lapsed')
end
if tonumber(fields[4]) > now then return { 'busy', integer(now), integer(fields[4] - now) } end
local queue_until = tonumber(fields[10] or '0')
if attempt == '0' and queue_until > 0 and now >= queue_until then return answer('stale') end
if attempt ~= ARGV[4] or fields[6] ~= ARGV[5] then return answer('moved') end
attempt = integer(tonumber(attempt) + 1)
redis.call('HSET', state, 'status', 'PROCESSING', 'attempt', attempt, 'token', ARGV[1],
  'worker', ARGV[2], 'lease', integer(now + lease), 'chunks', 0, 'tokens', 0, 'prompt_tokens', 0)
redis.call('HINCRBY', state, 'rev', 1)
local deadline = tonumber(fields[7])
local whole = write(ARGV[6], 'started_at updated_at', iso(now), deadline + ttl + STATE_MARGIN_MS)
tell(ARGV[14], ARGV[15], ARGV[16], whole, 'started_at updated_at', iso(now), now)
emit(attempt, 'state', 'status', 'PROCESSING', 'at', iso(now))
keep(deadline, ttl)
return { 'taken', integer(now), whole }
