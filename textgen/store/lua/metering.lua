-- Put in front of the scripts of limits and ledger, which share one slot of their own.
-- KEYS: what is held, when to look at it, tasks in lanes, queues that wait, base of the scopes,
--       base of the ledger, base of the waiting lists. What is named by day, owner or key begins with
--       one of these bases, and stands in the same slot.
local HELD, DUE, LANES, QUEUES, SCOPES, LEDGER, WAITING =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]

-- Longer than any deadline, any month, and a year of the ledger.
local HELD_MS, MONTH_MS, LEDGER_MS = 32 * 86400000, 40 * 86400000, 400 * 86400000
local MINUTE_MS, DAY_MS = 60000, 86400000

local function number(text)
  return tonumber(text or '0') or 0
end

-- What is held for a task: its place ('lane', 'waiting' or 'free'), owner, key, queue, tokens and
-- nanodollars reserved, milliseconds per request and token in the key's and everybody's rates, the time
-- in milliseconds at which it was let in, and the key under whose name it counts.
local function pack(fields)
  return table.concat(fields, '|') .. '|'
end

local function unpack_held(text)
  local fields = {}
  for field in string.gmatch(text, '([^|]*)|') do fields[#fields + 1] = field end
  return fields
end

-- The scopes that a task counts in: that of its key and of those that replaced one another with it (or of
-- its owner without a key), and everybody's.
local function scopes_of(owner, line)
  return { SCOPES .. owner .. '/' .. line, SCOPES .. '*' }
end

-- Lets tasks of a waiting list into their lane while there is room, in the order given.
-- Returns the ids of those let in.
local function let_in(queue, share, ids, first)
  local list, released = WAITING .. queue, {}
  for i = first, #ids do
    if share > 0 and number(redis.call('HGET', LANES, queue)) >= share then break end
    local text = redis.call('HGET', HELD, ids[i])
    if redis.call('ZREM', list, ids[i]) == 1 and text then
      local fields = unpack_held(text)
      fields[1] = 'lane'
      redis.call('HSET', HELD, ids[i], pack(fields))
      redis.call('HINCRBY', LANES, queue, 1)
      released[#released + 1] = ids[i]
    end
  end
  if redis.call('EXISTS', list) == 0 then redis.call('SREM', QUEUES, queue) end
  return released
end

