-- Puts a task into the sets by which its owner's tasks are found. They share a slot, but not the task's.
-- KEYS: the longest life of a task of this owner in ms; the sets
-- ARGV: life of this task in ms, members that a set may have, the task's place in each set
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local life = math.max(tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[1]) or '0'))
redis.call('SET', KEYS[1], string.format('%.0f', life), 'PX', string.format('%.0f', life))
-- What is older than any task can be points to nothing any more.
local oldest = string.format('(%013.0f', now - life)
for i = 2, #KEYS do
  redis.call('ZADD', KEYS[i], 0, ARGV[i + 1])
  redis.call('ZREMRANGEBYLEX', KEYS[i], '-', oldest)
  redis.call('ZREMRANGEBYRANK', KEYS[i], 0, -tonumber(ARGV[2]) - 1)
  if redis.call('PTTL', KEYS[i]) < life then
    redis.call('PEXPIRE', KEYS[i], string.format('%.0f', life))
  end
end
return #KEYS - 1
