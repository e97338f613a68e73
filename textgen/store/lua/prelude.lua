-- Put in front of every script: the clock, and how a change reaches record, event log and readers.
-- Scripts never decode what users wrote: they compare control fields and store strings as given.

local record, events, state, webhooks, deliveries = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local TERMINAL = { COMPLETED = true, FAILED = true, CANCELLED = true }

-- How long the control fields outlive the last moment at which a message could still be queued.
local STATE_MARGIN_MS = 3600000

-- How long a delivery of a webhook is kept beyond its next try.
local WEBHOOK_MARGIN_MS = 4 * 24 * 3600000

local function integer(number)
  return string.format('%.0f', number)
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- ISO 8601 in UTC with milliseconds. The date is Howard Hinnant's civil_from_days
-- (howardhinnant.github.io/date_algorithms.html).
local function iso(ms)
  local seconds = math.floor(ms / 1000)
  local z = math.floor(seconds / 86400) + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524)
    - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local rest = seconds % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60, ms % 1000)
end

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
  redis.call('PUBLISH', events, id)
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
