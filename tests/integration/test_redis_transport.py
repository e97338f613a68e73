"""What a worker is spared of kombu's Redis transport."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
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


def test_a_channel_makes_one_client_for_all_that_it_publishes(tmp_path: Path) -> None:
    redis_transport.reuse_clients()
    with PrivateRedis(tmp_path) as server, Connection(server.url) as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
        assert channel._create_client(asynchronous=True) is not first
        connection.collect()
        with connection.default_channel.conn_or_acquire() as after:
            assert after is not first
            assert after.ping()


def test_hundreds_acknowledge_at_once(tmp_path: Path) -> None:
    redis_transport.wait_for_connections()
    held: list[Any] = []
    queue, all_ready = Queue("held"), threading.Barrier(200)

    def acknowledge(message: Any) -> None:
        all_ready.wait(30)
        message.ack()

    with PrivateRedis(tmp_path) as server, Connection(server.url) as connection:
        for number in range(all_ready.parties):
            connection.Producer().publish(number, routing_key=queue.name, declare=[queue])
        with connection.Consumer([queue], on_message=held.append):
            while len(held) < all_ready.parties:
                connection.drain_events(timeout=5)
            with ThreadPoolExecutor(all_ready.parties) as threads:
                list(threads.map(acknowledge, held))
        client = redis.Redis.from_url(server.url)
        assert client.exists("unacked", "unacked_index", queue.name) == 0
        assert len(client.client_list()) < 30
