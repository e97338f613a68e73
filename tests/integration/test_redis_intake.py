"""Messages that a worker takes from Redis together."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.transport import redis as transport

from tests.services import PrivateRedis
from textgen import redis_intake, redis_transport

URGENT, PLAIN = Queue("urgent"), Queue("plain")
KEPT = (
    (transport.Channel, "_brpop_read"),
    (transport.QoS, "append"),
    (transport, "loads"),
)


@pytest.fixture(autouse=True)
def patched() -> Iterator[None]:
    kept = [(where, name, getattr(where, name)) for where, name in KEPT]
    redis_intake.take_many()
    redis_transport.survive_junk()
    yield
    for where, name, value in kept:
        setattr(where, name, value)


@pytest.fixture
def url(redis_server: PrivateRedis) -> str:
    return redis_server.url_of(redis_server.new_database())


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, decode_responses=True) as made:
        yield made


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    options = {"priority_steps": list(range(10)), "queue_order_strategy": "round_robin"}
    with Connection(url, transport_options=options) as made:
        yield made


def publish(connection: Connection, queue: Queue, *bodies: str, priority: int = 0) -> None:
    for body in bodies:
        connection.Producer().publish(body, routing_key=queue.name, declare=[queue], priority=priority)


def consumer(connection: Connection, act: Callable[[Any], Any], room: int) -> Consumer:
    made = connection.Consumer([URGENT, PLAIN], on_message=act)
    made.qos(prefetch_count=room)
    return made


def waiting(client: redis.Redis, queue: str) -> list[str]:
    """Bodies in a queue, the next first."""
    messages = [json.loads(raw) for raw in reversed(client.lrange(queue, 0, -1))]
    return [base64.b64decode(message["body"]).decode() for message in messages]


def test_all_that_there_is_room_for_comes_at_once(connection: Connection, client: redis.Redis) -> None:
    publish(connection, PLAIN, *(f"plain {n}" for n in range(6)))
    publish(connection, URGENT, *(f"urgent {n}" for n in range(3)))
    publish(connection, PLAIN, "most urgent of the plain", priority=9)
    publish(connection, PLAIN, "later", priority=1)
    got: list[Any] = []
    with consumer(connection, got.append, room=8):
        connection.drain_events(timeout=5)
    bodies = [message.decode() for message in got]
    assert len(bodies) == 8
    assert sorted(bodies) == sorted([f"urgent {n}" for n in range(3)] + [f"plain {n}" for n in range(5)])
    for kind in ("urgent", "plain"):
        own = [body for body in bodies if body.startswith(kind)]
        assert own == sorted(own), "first in, first out"
    assert {body.split()[0] for body in bodies[:2]} == {"urgent", "plain"}, "in turn"
    assert client.hlen("unacked") == client.zcard("unacked_index") == 8
    for message in got:
        message.ack()
    assert client.exists("unacked", "unacked_index") == 0
    assert waiting(client, "plain") == ["plain 5"]


def test_notes_are_those_of_the_transport_itself(connection: Connection, client: redis.Redis) -> None:
    publish(connection, PLAIN, "first", "second")
    with consumer(connection, lambda message: None, room=2) as holder:
        connection.drain_events(timeout=5)
        assert client.hlen("unacked") == 2
        noted = [json.loads(note) for note in client.hvals("unacked")]
        assert [note[1:] for note in noted] == [["", "plain"]] * 2
        now = client.time()[0]
        assert all(abs(now - at) < 30 for _, at in client.zrange("unacked_index", 0, -1, withscores=True))
        holder.recover(requeue=True)
    connection.default_channel.close()
    assert sorted(waiting(client, "plain")) == ["first", "second"]
    assert client.exists("unacked", "unacked_index") == 0


@pytest.mark.parametrize(
    "junk",
    [
        "no message",
        "[1, 2, 3]",
        '{"body": 1}',
        '{"body": "", "headers": [], "properties": {"delivery_tag": "tag", "delivery_info": {}}}',
        '{"body": "", "headers": [], "properties": {"delivery_tag": "tag",'
        ' "delivery_info": {"exchange": "", "routing_key": ""}}}',
    ],
)
def test_junk_is_left_to_the_reader_that_survives_it(
    connection: Connection, client: redis.Redis, junk: str
) -> None:
    publish(connection, PLAIN, "first", "second")
    client.lpush("plain", junk)
    publish(connection, PLAIN, "third", "fourth")
    got: list[Any] = []
    with consumer(connection, got.append, room=10):
        while len(got) < 5:
            connection.drain_events(timeout=5)
    assert [message.decode() for message in got[:2] + got[3:]] == ["first", "second", "third", "fourth"]
    assert got[2].content_type == "application/octet-stream"
    assert client.hlen("unacked") == 5
    for message in got:
        message.ack()
    assert client.exists("unacked", "unacked_index", "plain") == 0


def test_what_nobody_got_goes_back_where_it_was(connection: Connection, client: redis.Redis) -> None:
    publish(connection, PLAIN, *(f"plain {n}" for n in range(6)))
    got: list[Any] = []

    def act(message: Any) -> None:
        got.append(message)
        if len(got) == 3:
            raise KeyError("stop")

    with consumer(connection, act, room=5), pytest.raises(KeyError):
        connection.drain_events(timeout=5)
    assert waiting(client, "plain") == ["plain 3", "plain 4", "plain 5"]
    assert client.hlen("unacked") == client.zcard("unacked_index") == 3, "those that were handed over"
