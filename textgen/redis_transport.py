"""What kombu's Redis transport needs in a worker.

Its deliveries kept, the server's clock to count them by, junk and a lost server not fatal, connections
enough for all that acknowledge.
"""

from __future__ import annotations

import base64
import time
import uuid
from typing import Any

import redis
from kombu.transport import redis as transport
from kombu.utils.json import loads

_kombu_connection_parameters = transport.Channel._connparams
_kombu_create_client = transport.Channel._create_client
_kombu_get_pool = transport.Channel._get_pool


class ServerClock:
    """The server's time in seconds, as far as it was from this process's when it was last read."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() - self._ahead_s

    def read(self, client: Any) -> None:
        seconds, microseconds = client.time()
        self._ahead_s = time.time() - seconds - microseconds / 1e6


_server_time = ServerClock()


def renew_deliveries(task_consumer: Any) -> None:
    """Keep Redis from delivering again what this worker holds.

    The transport gives a message to another worker when its entry in `unacked_index` is older than
    the visibility time-out, running or not.
    """
    channel = task_consumer.channel
    with channel.conn_or_acquire() as client:
        _server_time.read(client)
        held = list(channel.qos._delivered)
        if held:
            client.zadd(channel.unacked_index_key, dict.fromkeys(held, _server_time()), xx=True)


def count_by_server_time(connection: Any) -> None:
    """Have the transport tell by the server's clock when a delivery was, and when it is overdue.

    By its own, a worker whose clock is ahead takes away what others hold, and what it leaves behind
    stays with nobody for as long as it is ahead.
    """
    with connection.default_channel.conn_or_acquire() as client:
        _server_time.read(client)
    transport.time = _server_time


def survive_junk() -> None:
    """Have the transport take what is no message for one, which then can be dead-lettered.

    Its own reader raises out of the worker's main loop, which ends the worker.
    """
    transport.loads = _loads


def survive_loss() -> None:
    """Have a channel of a closed connection say so, which kombu takes for what it is.

    Closing a lost connection, kombu 5.7 restores what its channel had not acknowledged; with the
    server gone too, that fails on an attribute of None, which ends the worker.
    """
    transport.Channel._connparams = _connection_parameters


def _connection_parameters(channel: Any, asynchronous: bool = False) -> dict[str, Any]:
    if channel.connection.client is None:
        raise redis.ConnectionError("the connection to the broker is closed")
    return _kombu_connection_parameters(channel, asynchronous)


def reuse_clients() -> None:
    """Have a channel make one client, instead of one for each publish and acknowledgement.

    To make one takes longer than to publish: redis-py 8 copies all its callbacks into it.
    """
    transport.Channel._create_client = _create_client


def _create_client(channel: Any, asynchronous: bool = False) -> Any:
    if asynchronous:  # such a one takes a connection for itself
        return _kombu_create_client(channel, asynchronous=True)
    kept = getattr(channel, "_kept_client", None)
    if kept is None or kept.connection_pool is not channel.pool:
        kept = channel._kept_client = _kombu_create_client(channel)
    return kept


def wait_for_connections() -> None:
    """Have threads and greenlets that acknowledge at once wait for one of a channel's few connections.

    Its own pool refuses them, and what is not acknowledged is delivered again.
    """
    transport.Channel._get_pool = _get_pool


def _get_pool(channel: Any, asynchronous: bool = False) -> Any:
    made = _kombu_get_pool(channel, asynchronous)
    if asynchronous:  # the event loop must not wait
        return made
    kept = dict(made.connection_kwargs)
    return redis.BlockingConnectionPool(
        max_connections=made.max_connections,
        timeout=kept.get("socket_timeout"),
        connection_class=made.connection_class,
        **kept,
    )


def _loads(item: Any) -> Any:
    try:
        message = loads(item)
        if _is_message(message) or _is_unacknowledged(message):
            return message
    except (ValueError, TypeError, RecursionError):
        pass
    raw = item.encode(errors="surrogateescape") if isinstance(item, str) else bytes(item)
    return {
        "body": base64.b64encode(raw).decode(),
        "content-type": "application/octet-stream",
        "content-encoding": "binary",
        "headers": {},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": ""},
            "delivery_mode": 2,
            "priority": 0,
        },
    }


def _is_unacknowledged(entry: Any) -> bool:
    """Whether it is what the transport keeps of a delivered message: message, exchange, routing key."""
    return isinstance(entry, list) and len(entry) == 3 and _is_message(entry[0])


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    properties = message.get("properties")
    return (
        isinstance(message.get("body"), str)
        and isinstance(message.get("headers"), dict)
        and isinstance(properties, dict)
        and isinstance(properties.get("delivery_tag"), str)
        and isinstance(properties.get("delivery_info"), dict)
    )
