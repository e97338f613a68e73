-- Deletes results, the oldest first. ARGV: how many at the most. Returns: {'cleared', now, number, left}
local number = 0
for _, digest in ipairs(redis.call('ZRANGE', INDEX, 0, tonumber(ARGV[1]) - 1)) do
  number = number + drop(digest)
end
local left = redis.call('ZCARD', INDEX)
if left == 0 then redis.call('DEL', SIZES) end
return { 'cleared', integer(now_ms()), integer(number), integer(left) }
