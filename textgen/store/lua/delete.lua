-- Deletes a terminal task. What stays, until no message of it can be queued any more, is a tombstone among
-- the control fields: that the task has ended and when it had to, and nothing of what it was.
-- Returns: {'absent' | 'active' | 'deleted', now}
local now = now_ms()
local status = redis.call('HGET', state, 'status')
if status and not TERMINAL[status] then return { 'active', integer(now) } end
for _, name in ipairs(redis.call('HKEYS', state)) do
  if name ~= 'status' and name ~= 'rev' and name ~= 'deadline' then redis.call('HDEL', state, name) end
end
redis.call('DEL', events, webhooks, deliveries)
if redis.call('DEL', record) == 0 then return { 'absent', integer(now) } end
return { 'deleted', integer(now) }
