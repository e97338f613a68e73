-- Accepts a new task: PENDING and its first event.
-- ARGV: record, fingerprint, deadline in ms from now, ttl in ms, due in ms from now, envelope,
--       queue time-out in ms or 0, attempt time-out in s or 0, time until which the caller waits,
--       time of the submit (Redis' time as the caller reckons it: by it the task is in the indexes),
--       webhook or ''
-- Returns: {'created', now, deadline, record, queue until} or {'exists', now, fingerprint, record}, which
--          has no fingerprint where that submit was taken back: its id is used up, and nothing will run
--          or {'late', now}: the caller has given up, and must not have been wrong
local now = now_ms()
local created = natural(ARGV[10])
local deadline, ttl = created + natural(ARGV[3]), natural(ARGV[4])
local due, queue = natural(ARGV[5]), natural(ARGV[7])
if now > tonumber(ARGV[9]) then return { 'late', integer(now) } end
if redis.call('EXISTS', state) == 1 then
  local refused = redis.call('HEXISTS', state, 'refused') == 1
  local fingerprint = not refused and redis.call('HGET', state, 'fingerprint')
  return { 'exists', integer(now), fingerprint or '', redis.call('GET', record) or '' }
end
local queue_until = queue > 0 and now + due + queue or 0
redis.call('HSET', state, 'status', 'PENDING', 'attempt', 0, 'failures', 0, 'rev', 1,
  'fingerprint', ARGV[2], 'deadline', integer(deadline), 'ttl', ARGV[4],
  'due', due > 0 and integer(now + due) or 0, 'envelope', ARGV[6],
  'queue_until', integer(queue_until), 'attempt_s', ARGV[8])
if ARGV[11] ~= '' then redis.call('HSET', state, 'webhook', ARGV[11]) end
local object = string.sub(ARGV[1], 1, -2) .. ',"deadline":"' .. iso(deadline) .. '"}'
local whole = write(object, 'created_at updated_at', iso(created), deadline + ttl + STATE_MARGIN_MS)
emit('0', 'state', 'status', 'PENDING', 'at', iso(created))
keep(deadline, ttl)
return { 'created', integer(now), integer(deadline), whole, integer(queue_until) }
