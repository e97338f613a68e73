-- Takes back a submit that the broker did not confirm, unless it has begun to run all the same.
-- What stays is a tombstone among the control fields, so that a message kept after all never runs.
-- Returns: {'refused' | 'running', now}
local now = now_ms()
local status = redis.call('HGET', state, 'status')
if status and status ~= 'PENDING' then return { 'running', integer(now) } end
-- What frees memory comes first: a script that has begun to write may go on when Redis has no memory left.
redis.call('DEL', record, events)
if status then
  redis.call('HDEL', state, 'envelope', 'due')
  redis.call('HSET', state, 'status', 'CANCELLED', 'refused', 1)
  redis.call('HINCRBY', state, 'rev', 1)
end
return { 'refused', integer(now) }
