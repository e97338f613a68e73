-- Settles what is held for a task: gives the reservation back, and writes what was used into the ledger.
-- Only the first call finds it held, so that every task is billed once.
-- ARGV: id, whether it counts (1) or was never accepted (0), tokens of prompt and text, nanodollars or '',
--       tasks of a queue that may be in its lane (0: any number), ids at the head of its waiting list
-- Returns: {'billed' | 'nothing', now, ids let into the lane…}
local id, counts, now = ARGV[1], ARGV[2] == '1', now_ms()
local text = redis.call('HGET', HELD, id)
local prompt, completion, share = natural(ARGV[3]), natural(ARGV[4]), natural(ARGV[6])
local cost = ARGV[5] ~= '' and integer(natural(ARGV[5]))
local place, owner, key, queue, tokens, nano, r1, t1, r2, t2, _, line = unpack(unpack_held(text or ''))
if text then tokens, nano = natural(tokens), natural(nano) end
redis.call('ZREM', DUE, id)
if not text then return { 'nothing', integer(now) } end
redis.call('HDEL', HELD, id)
local day = string.sub(iso(now), 1, 10)

local function give_back(name, field, ms)
  local tat = redis.call('HGET', name, field)
  if tat and ms ~= 0 then
    redis.call('HSET', name, field, string.format('%.3f', math.max(tonumber(tat), now) - ms))
  end
end

for scope, name in ipairs(scopes_of(owner, line or key)) do
  local request_ms, token_ms = tonumber(scope == 1 and r1 or r2), tonumber(scope == 1 and t1 or t2)
  if redis.call('EXISTS', name) == 1 then
    redis.call('HINCRBY', name, 'tasks', -1)
    redis.call('HINCRBY', name, 'tokens', integer(0 - tokens))
    redis.call('HINCRBY', name, 'nano', integer(0 - nano))
    give_back(name, 'rate', (tokens - prompt - completion) * token_ms)
    if not counts then give_back(name, 'requests', request_ms) end
  end
  if counts then
    for _, period in ipairs({ day, string.sub(day, 1, 7) }) do
      local spent = name .. ':' .. period
      redis.call('HINCRBY', spent, 'tokens', integer(prompt + completion))
      if cost then redis.call('HINCRBY', spent, 'nano', cost) end
      redis.call('PEXPIRE', spent, MONTH_MS)
    end
  end
end
if counts then
  local ledger = LEDGER .. owner .. ':' .. day
  redis.call('HINCRBY', ledger, key .. '|requests', 1)
  redis.call('HINCRBY', ledger, key .. '|prompt', integer(prompt))
  redis.call('HINCRBY', ledger, key .. '|completion', integer(completion))
  if cost then redis.call('HINCRBY', ledger, key .. '|nano', cost) end
  redis.call('PEXPIRE', ledger, LEDGER_MS)
end
if place == 'lane' and redis.call('HINCRBY', LANES, queue, -1) <= 0 then
  redis.call('HDEL', LANES, queue)
elseif place == 'waiting' then
  redis.call('ZREM', WAITING .. queue, id)
end
return { 'billed', integer(now), unpack(let_in(queue, share, ARGV, 7)) }
