-- Takes note that a provider's answer to a permit began, by a piece of text or by an error; or, where
-- nothing was asked of it after all, that the permit is given back.
-- ARGV: account, permit, window in ms (0: none set), whether it is given back (1), time of the grant,
--       what the provider told: requests limit, left, ms until reset; the same of tokens ('': nothing),
--       pause in ms ('': none; 0: as seems fit), factor of chance for the latter, 1 if all is well again
-- Returns: {'ok', now}
local of, permit, window, now = BASE .. ARGV[1], ARGV[2], natural(ARGV[3]), now_ms()
for place = 5, 12 do
  if (ARGV[place] or '') ~= '' then natural(ARGV[place]) end
end
local id = string.match(permit, '|(.*)$')
if redis.call('HGET', of, 'try') == id then redis.call('HDEL', of, 'try', 'try_until') end
local was = take(of, 'flying', permit)
if ARGV[4] == '1' then return { 'ok', integer(now) } end
-- one more: the clock was rounded down
if window > 0 then add(of, 'window', permit, now + window + 1, now) end

local granted, told = tonumber(ARGV[5]), redis.call('HGET', of, 'told')
for i, kind in ipairs({ 'requests', 'tokens' }) do
  local limit, left, reset = ARGV[3 + 3 * i], ARGV[4 + 3 * i], ARGV[5 + 3 * i]
  local old = redis.call('HMGET', of, kind .. '_left', kind .. '_reset')
  local is_current = old[1] and number(old[2]) > now
  if left ~= '' then
    -- answers may overtake each other: that of an earlier call knows of fewer
    if is_current and number(told) > granted then left = math.min(tonumber(left), tonumber(old[1])) end
    redis.call('HSET', of, kind .. '_left', integer(tonumber(left)), kind .. '_reset', integer(now + tonumber(reset)))
    if limit ~= '' then redis.call('HSET', of, kind .. '_limit', limit) end
  elseif was and is_current then
    redis.call('HINCRBY', of, kind .. '_left', i == 1 and -1 or -tokens_of(permit))
  end
end
if (ARGV[7] ~= '' or ARGV[10] ~= '') and granted > number(told) then redis.call('HSET', of, 'told', ARGV[5]) end

if ARGV[14] == '1' then redis.call('HDEL', of, 'throttles') end
if ARGV[12] ~= '' then
  local pause, until_ms = tonumber(ARGV[12]), number(redis.call('HGET', of, 'pause'))
  if pause == 0 and until_ms <= now then
    local times = redis.call('HINCRBY', of, 'throttles', 1)
    pause = math.min(60000, 1000 * 2 ^ (times - 1)) * tonumber(ARGV[13])
  end
  redis.call('HSET', of, 'pause', integer(math.max(until_ms, now + pause)))
  redis.call('HINCRBY', of, 'throttled', 1)
end
keep(of, 0)
return { 'ok', integer(now) }
