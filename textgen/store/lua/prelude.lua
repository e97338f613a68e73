-- Put in front of a task's transitions: how a change reaches record, event log and readers.
-- Scripts never decode what users wrote: they compare control fields and store strings as given.

local record, events, state, webhooks, deliveries = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local TERMINAL = { COMPLETED = true, FAILED = true, CANCELLED = true }

-- How long the control fields outlive the last moment at which a message could still be queued.
local STATE_MARGIN_MS = 3600000

-- How long a delivery of a webhook is kept beyond its next try.
local WEBHOOK_MARGIN_MS = 4 * 24 * 3600000

-- The JSON object given, with `at` added under each name in `stamps`.
local function stamped(object, stamps, at)
  local parts = { string.sub(object, 1, -2) }
  for name in string.gmatch(stamps, '%S+') do
    parts[#parts + 1] = ',"' .. name .. '":"' .. at .. '"'
  end
  parts[#parts + 1] = '}'
  return table.concat(parts)
end

-- Stores the record.
local function write(object, stamps, at, expires_ms)
  local whole = stamped(object, stamps, at)
  redis.call('SET', record, whole, 'PXAT', integer(expires_ms))
  return whole
end

-- Adds an entry to the event log and tells the readers.
local function emit(attempt, kind, ...)
  local id = integer(redis.call('HINCRBY', state, 'seq', 1)) .. '-' .. attempt
  redis.call('XADD', events, id, 'type', kind, ...)
  redis.call('PUBLISH', events, id .. ' ' .. kind)
end

-- Record and log of a task that goes on outlive its deadline, so that whoever is late can still
-- read how it ended; the control fields outlive both.
local function keep(deadline, ttl)
  redis.call('PEXPIREAT', events, integer(deadline + ttl + STATE_MARGIN_MS))
  redis.call('PEXPIREAT', state, integer(deadline + ttl + 2 * STATE_MARGIN_MS))
end

-- Keeps what the task's webhook has to be told of a change, for as long as it may have to be told.
-- `id` is '' where it does not want to know; `short` is '' where the whole record is small enough.
local function tell(id, head, short, whole, stamps, at, now)
  if id == '' then return end
  local data = short == '' and whole or stamped(short, stamps, at)
  redis.call('HSET', webhooks, 'webhook', redis.call('HGET', state, 'webhook') or '',
    id .. ':body', '{' .. head .. ',"timestamp":"' .. at .. '","data":' .. data .. '}')
  redis.call('PEXPIREAT', webhooks, integer(now + WEBHOOK_MARGIN_MS))
end
