-- Lets a task in, if every limit allows it: looks at all of them first, then takes from all of them.
-- ARGV: id, owner, key, queue, rank in the waiting list, tokens and nanodollars to reserve, tasks of a
--       queue that may be in its lane (0: any number, not counted), milliseconds until the janitor
--       looks; then for the key and for everybody: requests and tokens per minute, tasks,
--       tokens per day and month, nanodollars per day and month (0: no such limit); at last the key
--       under whose name all is counted but the ledger
-- Returns: {'admitted', now, place, rates…} {'already', now}
--          {'refused', now, which, scope (1: the key, 2: everybody), ms to wait, rates…}
-- Rates are of the key: limit, remaining, ms until it is whole again; for requests, then for tokens.
local id, owner, key, queue, line, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[24], now_ms()
local tokens, nano, share = natural(ARGV[6]), natural(ARGV[7]), natural(ARGV[8])
local rank, look_ms = natural(ARGV[5]), natural(ARGV[9])
if redis.call('HEXISTS', HELD, id) == 1 then return { 'already', integer(now) } end
local day, month = string.sub(iso(now), 1, 10), string.sub(iso(now), 1, 7)

local function until_next(length, current)
  local at = (math.floor(now / DAY_MS) + 1) * DAY_MS
  while string.sub(iso(at), 1, length) == current do at = at + DAY_MS end
  return at - now
end

-- The generic cell rate algorithm: `tat` is when the rate is whole again if nothing more comes.
-- Returns: its new value, ms to wait (0: allowed), what remains of it now and its wholeness in ms
local function rate(tat, limit, cost)
  local from, step = math.max(number(tat), now), MINUTE_MS / limit
  local wait = from + cost * step - MINUTE_MS - now
  if wait < 1 then return from + cost * step, 0 end
  return from, wait
end

local function shown(tat, limit)
  local debt = math.max(number(tat) - now, 0)
  local rest = math.max(math.floor((MINUTE_MS - debt) / (MINUTE_MS / limit) + 0.001), 0)
  return integer(limit), integer(rest), integer(debt)
end

local refused, taken, rates = nil, {}, {}
local function refuse(which, scope, wait)
  if not refused then refused = { 'refused', integer(now), which, integer(scope), integer(wait) } end
end

local steps = {}
for scope, name in ipairs(scopes_of(owner, line)) do
  local limits = {}
  for i = 1, 7 do limits[i] = tonumber(ARGV[9 + (scope - 1) * 7 + i]) end
  local has = redis.call('HMGET', name, 'requests', 'rate', 'tasks', 'tokens', 'nano')
  for i, period in ipairs({ day, month }) do
    local spent = redis.call('HMGET', name .. ':' .. period, 'tokens', 'nano')
    local word, length = i == 1 and 'day' or 'month', i == 1 and 10 or 7
    local function budget(what, limit, used, held, cost)
      if limit <= 0 then return end
      if used + cost > limit then
        refuse(what .. '_per_' .. word, scope, until_next(length, period))
      elseif used + held + cost > limit then
        refuse('held', scope, 0)
      end
    end
    budget('tokens', limits[3 + i], number(spent[1]), number(has[4]), tokens)
    budget('usd', limits[5 + i], number(spent[2]), number(has[5]), nano)
  end
  if limits[3] > 0 and number(has[3]) >= limits[3] then refuse('tasks', scope, 0) end
  for i, kind in ipairs({ 'requests', 'tokens' }) do
    local step, old = 0, has[i]
    if limits[i] > 0 then
      local cost = i == 1 and 1 or tokens
      if cost > limits[i] then
        refused = nil
        refuse('never', scope, 0)
      end
      local new, wait = rate(old, limits[i], cost)
      if wait > 0 then refuse(kind .. '_per_minute', scope, wait) end
      taken[#taken + 1] = { name, i == 1 and 'requests' or 'rate', new }
      step = MINUTE_MS / limits[i]
      if scope == 1 then rates[#rates + 1] = { kind, limits[i], old, new } end
    end
    steps[#steps + 1] = string.format('%.6f', step)
  end
end

local answer = refused or { 'admitted', integer(now), 'free' }
local function with_rates()
  for _, one in ipairs(rates) do
    local limit, rest, whole = shown(refused and one[3] or one[4], one[2])
    for _, part in ipairs({ one[1], limit, rest, whole }) do answer[#answer + 1] = part end
  end
  return answer
end
if refused then return with_rates() end

for _, one in ipairs(taken) do redis.call('HSET', one[1], one[2], string.format('%.3f', one[3])) end
for _, name in ipairs(scopes_of(owner, line)) do
  redis.call('HINCRBY', name, 'tasks', 1)
  redis.call('HINCRBY', name, 'tokens', integer(tokens))
  redis.call('HINCRBY', name, 'nano', integer(nano))
  redis.call('PEXPIRE', name, HELD_MS)
end
if share > 0 then
  local list = WAITING .. queue
  if number(redis.call('HGET', LANES, queue)) >= share or redis.call('EXISTS', list) == 1 then
    answer[3] = 'waiting'
    local order = redis.call('HINCRBY', LANES, '#', 1)
    redis.call('ZADD', list, integer(rank * 1e13 + order), id)
    redis.call('SADD', QUEUES, queue)
    redis.call('PEXPIRE', list, HELD_MS)
    redis.call('PEXPIRE', QUEUES, HELD_MS)
  else
    answer[3] = 'lane'
    redis.call('HINCRBY', LANES, queue, 1)
  end
  redis.call('PEXPIRE', LANES, HELD_MS)
end
redis.call('HSET', HELD, id, pack({ answer[3], owner, key, queue, integer(tokens), integer(nano),
  steps[1], steps[2], steps[3], steps[4], integer(now), line }))
redis.call('ZADD', DUE, integer(now + look_ms), id)
redis.call('PEXPIRE', HELD, HELD_MS)
redis.call('PEXPIRE', DUE, HELD_MS)
return with_rates()
