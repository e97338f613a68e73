-- Gives a task the first of several engines that may be called now: its circuit admits a call, it is not
-- paused, and there is room under its limits. If there is none, tells when to come again.
-- A permit counts from here until a window after the provider's answer began, so that the provider never
-- sees more than the limit in any window, however long the way there takes.
-- ARGV: id of the permit, task, tokens, ms after which a permit without an answer is given up for lost,
--       ms after which an open circuit is tried again, ms that one such try may take;
--       then for each engine: account ('': nothing to ask), whether it has a circuit (1),
--       requests and tokens in a window (0: no limit), the window in ms
-- Returns: {'granted', now, place, 1 if it tries a circuit, 1 if there is anything to make good,
--           1 if it counts, why not those before it…}
--          {'wait', now, ms, place of the shortest wait, why not each…}
local id, task, tokens, now = ARGV[1], ARGV[2], natural(ARGV[3]), now_ms()
local lost_ms, reset_ms, try_ms = natural(ARGV[4]), natural(ARGV[5]), natural(ARGV[6])
local HEAD, EACH = 6, 5
-- What a provider's limit is taken to be for that tells of none.
local MINUTE_MS = 60000

-- When the number of permits in the window has gone down by `count`; nil where that is not known.
local function freed_at(of, count)
  local found = redis.call('ZRANGE', of .. ':window', count - 1, count - 1, 'WITHSCORES')
  return tonumber(found[2])
end

-- When tokens of the window have gone down by `count`.
local function tokens_freed_at(of, count)
  local found = redis.call('ZRANGE', of .. ':window', 0, 199, 'WITHSCORES')
  for i = 1, #found, 2 do
    count = count - tokens_of(found[i])
    if count <= 0 then return tonumber(found[i + 1]) end
  end
end

-- How much of a limit is left: what is set, and what the provider told. Returns what is left (nil: no
-- limit), when there is more, and ms in which one more comes back on the average.
local function left_of(of, limit, window, used, flying, known, kind, cost, freed)
  local left, at, step = nil, nil, 0
  if limit > 0 then
    cost = math.min(cost, limit)
    left, step = limit - used - flying, window * cost / limit
    if left < cost then at = freed(of, cost - left) or now + math.max(step, 1000) end
  end
  local told, reset, whole = known[kind .. '_left'], number(known[kind .. '_reset']), known[kind .. '_limit']
  -- of a limit of none, one finds out whether it still holds
  if whole then whole = math.max(tonumber(whole), 1) end
  if told and reset <= now then told = whole end
  if told then
    told = tonumber(told) - flying
    if whole then
      cost = math.min(cost, whole)
      step = math.max(step, MINUTE_MS * cost / whole)
    end
    if told < cost then at = math.max(at or 0, reset > now and reset or now + 1000) end
    left = math.min(left or told, told)
  end
  return left, at, step
end

-- Whether an engine may be called now.
-- Returns: nil, whether it is a try, anything to make good, whether it counts; or why not, when, ms between
-- two that wait in line (nil: they do not)
local function look(of, has_circuit, requests, most_tokens, window)
  local known = {}
  local raw = redis.call('HGETALL', of)
  for i = 1, #raw, 2 do known[raw[i]] = raw[i + 1] end
  if number(known.pause) > now then return 'paused', number(known.pause) end
  local is_try, unsteady = false, number(known.throttles) > 0
  if has_circuit then
    local state = redis.call('GET', circuit(of, 'state')) or 'closed'
    local opened = number(redis.call('GET', circuit(of, 'opened_at'))) * 1000
    if state == 'open' and opened + reset_ms > now then return 'circuit open', opened + reset_ms end
    is_try = state ~= 'closed'
    if is_try and known.try ~= id and number(known.try_until) > now then
      return 'circuit open', math.min(number(known.try_until), now + math.max(reset_ms / 4, 250))
    end
    unsteady = unsteady or is_try or number(redis.call('GET', circuit(of, 'fail_counter'))) > 0
  end
  local counts = requests > 0 or most_tokens > 0 or known.requests_left or known.tokens_left
  if not counts then return nil, is_try, unsteady, false end

  forget(of, 'flying', now)
  forget(of, 'window', now)
  local flying, used = redis.call('ZCARD', of .. ':flying'), redis.call('ZCARD', of .. ':window')
  if flying + used == 0 then redis.call('HDEL', of, 'flying_tokens', 'window_tokens') end
  local sums = redis.call('HMGET', of, 'flying_tokens', 'window_tokens')
  local left, at, step = left_of(of, requests, window, used, flying, known, 'requests', 1, freed_at)
  local rest, later, pace = left_of(of, most_tokens, window, number(sums[2]), number(sums[1]), known,
    'tokens', tokens, tokens_freed_at)
  at = at and later and math.max(at, later) or at or later
  step = math.max(step, pace)

  -- Those who were told to come now go first; but half of the room is never kept for who may not come.
  redis.call('ZREMRANGEBYSCORE', of .. ':line', '-inf', integer(now - LATE_MS))
  local mine = tonumber(redis.call('ZSCORE', of .. ':line', task) or nil)
  if not at and left and not (mine and mine <= now) then
    local whole = requests > 0 and requests or tonumber(known.requests_limit or left)
    local due = redis.call('ZCOUNT', of .. ':line', '-inf', integer(now))
    if due > 0 and left <= math.min(due, math.ceil(whole / 2)) then at = now end
  end
  if at then return 'at its limit', at, step, mine end
  return nil, is_try, unsteady, true
end

local best, best_at, best_step, best_mine, why = nil, nil, nil, nil, {}
for place = 1, (#ARGV - HEAD) / EACH do
  local from = HEAD + (place - 1) * EACH
  local account, of = ARGV[from + 1], BASE .. ARGV[from + 1]
  local reason, a, b, c
  if account ~= '' then
    reason, a, b, c = look(of, ARGV[from + 2] == '1', tonumber(ARGV[from + 3]), tonumber(ARGV[from + 4]),
      tonumber(ARGV[from + 5]))
  end
  if not reason then
    local is_try, unsteady, counts = a, b, c
    if account ~= '' then
      if counts then add(of, 'flying', integer(tokens) .. '|' .. id, now + lost_ms, now) end
      if is_try then
        redis.call('HSET', of, 'try', id, 'try_until', integer(now + try_ms))
        redis.call('SET', circuit(of, 'state'), 'half-open', 'PX', KEPT_MS)
      end
      redis.call('HINCRBY', of, 'granted', 1)
      keep(of, 0)
    end
    for other = 1, (#ARGV - HEAD) / EACH do
      local name = ARGV[HEAD + (other - 1) * EACH + 1]
      if name ~= '' then redis.call('ZREM', BASE .. name .. ':line', task) end
    end
    return { 'granted', integer(now), place, is_try and 1 or 0, unsteady and 1 or 0, counts and 1 or 0,
      unpack(why) }
  end
  why[#why + 1] = reason
  if not best_at or a < best_at then best, best_at, best_step, best_mine = place, a, b, c end
end

local of = BASE .. ARGV[HEAD + (best - 1) * EACH + 1]
if best_step then
  local line = of .. ':line'
  if not best_mine or best_mine <= now then
    local last = redis.call('ZREVRANGE', line, 0, 0, 'WITHSCORES')
    -- who is late keeps the place
    if not best_mine and last[2] then best_at = math.max(best_at, tonumber(last[2]) + best_step) end
    redis.call('ZADD', line, integer(best_at), task)
    keep(line, best_at - now + LATE_MS)
  else
    best_at = best_mine
  end
end
redis.call('HINCRBY', of, 'parked', 1)
keep(of, 0)
return { 'wait', integer(now), integer(math.max(best_at - now, 1)), best, unpack(why) }
