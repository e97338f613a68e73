-- Put in front of the scripts of the cache. All keys of a scope (an owner, or all) share a slot.
-- KEYS: results by when they expire, their sizes with their sum under '#', and what the names of
--       results, leads and followers begin with, which go on with the digest of a request
local INDEX, SIZES, RESULTS, LEADS, FOLLOWERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

-- How long those who wait for a leader are remembered: each of them comes back in seconds.
local FOLLOWERS_MS = 60000

-- Deletes a result; returns 1 if there was one.
local function drop(digest)
  local size = redis.call('HGET', SIZES, digest)
  if size then
    redis.call('HINCRBY', SIZES, '#', 0 - tonumber(size))
    redis.call('HDEL', SIZES, digest)
  end
  redis.call('ZREM', INDEX, digest)
  return redis.call('DEL', RESULTS .. digest)
end

