-- Put in front of every script that reads the clock, which is Redis' own.

local function integer(number)
  return string.format('%.0f', number)
end

-- Whole numbers are exact up to here; no attempt uses as many tokens.
local EXACT, TOKENS = 9007199254740992, 1000000000000

-- The whole number that `text` is, from 0 on. To be asked before the first write: Redis takes back nothing
-- of a script that breaks off, and whoever repeats it would have counts added again.
local function natural(text, most)
  local number = tonumber(text)
  if not number or number < 0 or number > (most or EXACT) or number % 1 ~= 0 then
    error(string.sub(tostring(text), 1, 40) .. ' is no number that can be counted')
  end
  return number
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

