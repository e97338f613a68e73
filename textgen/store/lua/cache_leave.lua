-- Gives the lead up, if the task has it. ARGV: digest, task id. Returns: {'left' | 'lost', now}
local lead = LEADS .. ARGV[1]
if redis.call('GET', lead) ~= ARGV[2] then return { 'lost', integer(now_ms()) } end
redis.call('DEL', lead)
return { 'left', integer(now_ms()) }
