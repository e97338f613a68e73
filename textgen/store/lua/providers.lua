-- Put in front of the scripts about engines that have limits or circuits; all share one slot.
-- KEYS: the base of all names. An engine's account is a hash; beside it stand, each a sorted set,
--   :flying  permits whose answer has not begun, by the time at which they are given up for lost
--   :window  permits whose answer has begun, by the time from which they count no more
--   :line    tasks that wait for room, by the time at which each is to come again
-- and what pybreaker keeps of its circuit. A permit is named `<tokens>|<id>`.
local BASE = KEYS[1]

-- How long what is known of an account outlives its last use.
local KEPT_MS = 86400000
-- How long the room of a task that is late is kept for it.
local LATE_MS = 3000

local function number(text)
  return tonumber(text or '0') or 0
end

local function keep(name, ms)
  redis.call('PEXPIRE', name, integer(math.max(ms, KEPT_MS)))
end

local function tokens_of(permit)
  return tonumber(string.match(permit, '^(%d+)|')) or 0
end

local function circuit(of, what)
  return of .. ':pybreaker:' .. what
end

-- Takes permits out of a set that are in it no longer, and their tokens out of its sum.
local function forget(of, set, now)
  local name = of .. ':' .. set
  for _, permit in ipairs(redis.call('ZRANGEBYSCORE', name, '-inf', integer(now))) do
    redis.call('ZREM', name, permit)
    redis.call('HINCRBY', of, set .. '_tokens', -tokens_of(permit))
  end
end

local function add(of, set, permit, until_ms, now)
  local name = of .. ':' .. set
  if redis.call('ZADD', name, integer(until_ms), permit) == 1 then
    redis.call('HINCRBY', of, set .. '_tokens', tokens_of(permit))
  end
  keep(name, until_ms - now + LATE_MS)
end

local function take(of, set, permit)
  local was = redis.call('ZREM', of .. ':' .. set, permit) == 1
  if was then redis.call('HINCRBY', of, set .. '_tokens', -tokens_of(permit)) end
  return was
end

