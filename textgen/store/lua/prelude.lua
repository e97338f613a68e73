-- Put in front of a task's transitions: how a change reaches record, event log and readers.
-- Scripts never decode what users wrote: they compare control fields and store strings as given.

local record, events, state = KEYS[1], KEYS[2], KEYS[3]
local TERMINAL = { COMPLETED = true, FAILED = true, CANCELLED = true }

-- How long the control fields outlive the last moment at which a message could still be queued.
local STATE_MARGIN_MS = 3600000

-- Stores the record: the JSON object given, with `at` added under each name in `stamps`.
local function write(object, stamps, at, expires_ms)
  local parts = { string.sub(object, 1, -2) }
  for name in string.gmatch(stamps, '%S+') do
    parts[#parts + 1] = ',"' .. name .. '":"' .. at .. '"'
  end
  parts[#parts + 1] = '}'
  local whole = table.concat(parts)
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
