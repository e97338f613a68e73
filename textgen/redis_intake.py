"""Has kombu's Redis transport take all messages that a worker has room for at once.

By itself it takes one at a time: a blocking pop, a note that it is not acknowledged, and only then the next,
each a round trip for which, with hundreds of greenlets, the worker's loop waits a turn of all of them.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as transport
from kombu.utils.encoding import bytes_to_str

#: Messages, and about as many bytes of them, taken in one round trip at the most: while the script runs, the
#: server does nothing else.
AT_ONCE, BYTES_AT_ONCE = 200, 1_000_000

#: Takes messages from the end of lists, in the order in which the transport would: lists of the highest
#: priority first, one message of each in turn. Each is noted as not acknowledged in the same step, as
#: kombu.transport.redis.QoS notes it. What is no such message is left to the transport's own reader.
#: KEYS: not acknowledged, their times, lists. ARGV: most messages, most bytes, lists of one priority.
#: Returns [number of the list, delivery tag, message]…
TAKE = """
local function note(raw)
  local is_json, message = pcall(cjson.decode, raw)
  if not is_json or type(message) ~= 'table' then return nil end
  local properties = message.properties
  if type(message.body) ~= 'string' or type(message.headers) ~= 'table' or type(properties) ~= 'table' then
    return nil
  end
  local tag, from = properties.delivery_tag, properties.delivery_info
  if type(tag) ~= 'string' or type(from) ~= 'table' then return nil end
  local exchange, key = from.exchange, from.routing_key
  if type(exchange) ~= 'string' or type(key) ~= 'string' then return nil end
  return tag, '[' .. raw .. ', ' .. cjson.encode(exchange) .. ', ' .. cjson.encode(key) .. ']'
end

local taken, most, room, width = {}, tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
for first = 3, #KEYS, width do
  local is_more = true
  while is_more and #taken < most and room > 0 do
    is_more = false
    for place = first, first + width - 1 do
      local raw = #taken < most and room > 0 and redis.call('LINDEX', KEYS[place], -1)
      local tag, noted
      if raw then tag, noted = note(raw) end
      if tag then
        redis.call('RPOP', KEYS[place])
        redis.call('ZADD', KEYS[2], now, tag)
        redis.call('HSET', KEYS[1], tag, noted)
        taken[#taken + 1] = { place - 2, tag, raw }
        room = room - #raw
        is_more = true
      end
    end
  end
end
return taken
"""

_kombu_read = transport.Channel._brpop_read
_kombu_append = transport.QoS.append


def take_many() -> None:
    """Have channels take more than the one message that they were woken by, while there are more."""
    transport.Channel._brpop_read = _read
    transport.QoS.append = _append


def _read(channel: Any, **options: Any) -> Any:
    is_read = _kombu_read(channel, **options)
    room = channel.qos.can_consume_max_estimate()
    if is_read and room:
        _deliver(channel, _take(channel, min(room, AT_ONCE)))
    return is_read


def _take(channel: Any, most: int) -> list[tuple[str, str, Any]]:
    """Messages as (queue, delivery tag, message), which the server holds as not acknowledged."""
    queues = channel._queue_cycle.consume(len(channel.active_queues))
    if not queues:
        return []
    keys = [channel._q_for_pri(queue, priority) for priority in channel.priority_steps for queue in queues]
    notes = [channel.unacked_key, channel.unacked_index_key]
    with channel.conn_or_acquire() as client:
        taken = client.eval(TAKE, 2 + len(keys), *notes, *keys, most, BYTES_AT_ONCE, len(queues))
    return [(queues[(place - 1) % len(queues)], bytes_to_str(tag), raw) for place, tag, raw in taken]


def _deliver(channel: Any, taken: list[tuple[str, str, Any]]) -> None:
    noted = channel.qos._noted = dict.fromkeys(tag for _, tag, _ in taken)
    try:
        for queue, tag, raw in taken:
            channel._queue_cycle.rotate(queue)
            channel.connection._deliver(transport.loads(bytes_to_str(raw)), queue)
            if tag in noted:  # it went by another tag, as what is no message does
                channel.qos._remove_from_indices(tag).execute()
                del noted[tag]
    finally:
        for tag in reversed(noted):  # nobody got it
            channel.qos.restore_by_tag(tag)


def _append(qos: Any, message: Any, delivery_tag: str) -> None:
    if delivery_tag in getattr(qos, "_noted", ()):
        del qos._noted[delivery_tag]
        super(transport.QoS, qos).append(message, delivery_tag)
    else:
        _kombu_append(qos, message, delivery_tag)
