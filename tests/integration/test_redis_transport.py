"""What a worker is spared of kombu's Redis transport."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kombu import Connection, Queue
from kombu.common import ignore_errors

from tests.services import PrivateRedis
from textgen import redis_transport


def test_closing_a_lost_connection_ends_nobody_where_the_server_is_gone(tmp_path: Path) -> None:
    held: list[Any] = []
    queue = Queue("held")
    redis_transport.survive_loss()
    with PrivateRedis(tmp_path) as server:
        connection = Connection(server.url)
        connection.Producer().publish({}, routing_key=queue.name, declare=[queue])
        with connection.Consumer([queue], on_message=held.append):
            connection.drain_events(timeout=5)
        assert held  # and never acknowledged
        server.kill()
    connection.transport.client = None  # as kombu leaves it where it collected the transport before
    ignore_errors(connection, connection.close)
