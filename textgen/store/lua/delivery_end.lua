-- Writes down how a try of a delivery ended, and forgets the delivery if that was its last.
-- ARGV: id, entry of the log, entries kept, milliseconds until the next try or ''
-- Returns: {'ok' | 'none', now}
local now, id, entries = now_ms(), ARGV[1], natural(ARGV[3])
local wait = ARGV[4] ~= '' and natural(ARGV[4])
if redis.call('HEXISTS', webhooks, id .. ':body') == 0 then return { 'none', integer(now) } end
redis.call('HDEL', webhooks, id .. ':taken')
local next_at, kept = 'null', now + WEBHOOK_MARGIN_MS
if wait then
  next_at = '"' .. iso(now + wait) .. '"'
  kept = kept + wait
  redis.call('HINCRBY', webhooks, id .. ':tries', 1)
  redis.call('PEXPIREAT', webhooks, integer(kept))
else
  redis.call('HDEL', webhooks, id .. ':body', id .. ':tries')
  if redis.call('HLEN', webhooks) == 1 then redis.call('DEL', webhooks) end
end
local entry = string.sub(ARGV[2], 1, -2) .. ',"next_at":' .. next_at .. '}'
redis.call('RPUSH', deliveries, stamped(entry, 'at', iso(now)))
redis.call('LTRIM', deliveries, -entries, -1)
redis.call('PEXPIREAT', deliveries, integer(kept))
return { 'ok', integer(now) }
