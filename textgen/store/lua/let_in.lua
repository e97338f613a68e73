-- Lets tasks that wait into their lane where there is room, whoever ended before.
-- ARGV: queue, tasks of it that may be in the lane (0: any number), ids at the head of its waiting list
-- Returns: {'let in', now, ids let into the lane…}
return { 'let in', integer(now_ms()), unpack(let_in(ARGV[1], natural(ARGV[2]), ARGV, 3)) }
