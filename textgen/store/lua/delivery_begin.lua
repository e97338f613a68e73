-- Takes a delivery of a webhook, so that nobody else tries it at the same time.
-- ARGV: id, milliseconds for which it is taken.
-- Returns: {'none' | 'busy', now} or {'taken', now, body, webhook, tries so far}
local now = now_ms()
local fields = redis.call('HMGET', webhooks, ARGV[1] .. ':body', ARGV[1] .. ':taken', 'webhook',
  ARGV[1] .. ':tries')
if not fields[1] then return { 'none', integer(now) } end
if tonumber(fields[2] or '0') > now then return { 'busy', integer(now) } end
redis.call('HSET', webhooks, ARGV[1] .. ':taken', integer(now + tonumber(ARGV[2])))
return { 'taken', integer(now), fields[1], fields[3] or '', fields[4] or '0' }
