-- Takes back a submit that the broker did not confirm, unless it has begun to run all the same.
-- What stays is a tombstone among the control fields, so that a message kept after all never runs.
-- Returns: {'refused' | 'running', now}
local now = now_ms()
local status = redis.call('HGET', state, 'status')
if status and status ~= 'PENDING' then return { 'running', integer(now) } end
if status then
  redis.call('HSET', state, 'status', 'CANCELLED', 'refused', 1)
  redis.call('HINCRBY', state, 'rev', 1)
  redis.call('HDEL', state, 'envelope', 'due')
end
redis.call('DEL', record, events)
return { 'refused', integer(now) }
