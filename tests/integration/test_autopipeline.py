"""Calls of many threads share round trips, and only those."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from tests.services import PrivateRedis
from textgen.settings import Settings
from textgen.store import autopipeline, scripts
from textgen.store.connection import connect

CALLERS = 40


@pytest.fixture
def client(redis_server: PrivateRedis) -> Iterator[redis.Redis]:
    """A client of an empty database, with a connection that is open already."""
    made = connect(Settings(redis_url=redis_server.url_of(redis_server.new_database())))
    made.ping()
    yield made
    made.close()


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What calls return or raise that begin at the same time, each in a thread of its own."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        start.wait()
        try:
            return call()
        except Exception as exc:  # noqa: BLE001 - looked at by the test
            return exc

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@pytest.fixture
def reads(redis_server: PrivateRedis) -> Iterator[Callable[[], int]]:
    """How often the server has read since the last time, without the question itself."""
    with redis_server.client() as other:
        seen = [int(other.info("stats")["total_reads_processed"])]

        def read() -> int:
            seen.append(int(other.info("stats")["total_reads_processed"]))
            return seen[-1] - seen[-2] - 1

        yield read


def test_each_caller_gets_the_answers_to_its_own_commands(client: redis.Redis) -> None:
    def caller(number: int) -> list[Any]:
        found = []
        for n in range(50):
            pipe = client.pipeline(transaction=False).set(f"{number}", n).get(f"{number}")
            found.append(pipe.execute()[1])
            found.append(client.get(f"{number}"))
        return found

    told = at_once([lambda n=n: caller(n) for n in range(CALLERS)])
    assert told == [[str(n) for n in range(50) for _ in range(2)]] * CALLERS


def test_callers_share_round_trips(client: redis.Redis, reads: Callable[[], int]) -> None:
    at_once([lambda: [client.incr("n") for _ in range(50)]] * CALLERS)
    assert reads() < 50 * CALLERS / 4
    assert client.get("n") == str(50 * CALLERS)


def test_one_call_alone_waits_for_no_other(client: redis.Redis, reads: Callable[[], int]) -> None:
    reads()
    for _ in range(10):
        client.incr("n")
    assert reads() == 10


def test_an_error_is_its_callers_alone(client: redis.Redis) -> None:
    client.set("text", "a")
    wrong = [
        lambda: client.hget("text", "field"),
        lambda: scripts.send(client, [("GET", "text"), ("HGET", "text", "field")]),
        lambda: client.set("text", "\ud800"),
        lambda: client.set("text", object()),
    ]
    told = at_once((wrong + [lambda: client.get("text")] * 6) * 5)
    for n in range(0, 50, 10):
        kinds = [type(one) for one in told[n : n + 4]]
        assert kinds[:2] == [redis.ResponseError] * 2
        assert kinds[2:] == [UnicodeEncodeError, redis.DataError]
        assert told[n + 4 : n + 10] == ["a"] * 6


def test_what_is_no_text_disturbs_nobody(client: redis.Redis) -> None:
    client.set("bytes", b"\xff")
    told = at_once([lambda: client.get("bytes"), lambda: client.set("text", "a")] * 20)
    assert told == ["\ufffd", True] * 20


def test_a_silent_server_holds_no_caller_for_long(
    redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound_s = 0.5
    monkeypatch.setattr(autopipeline, "GROUP", 10)
    client = connect(Settings(redis_url=redis_server.url, redis_timeout_s=bound_s))
    at_once([client.ping] * CALLERS)
    redis_server.pause()
    began = time.monotonic()
    try:
        told = at_once([client.ping] * 150)
    finally:
        redis_server.resume()
    took = time.monotonic() - began
    assert {type(one) for one in told} == {redis.TimeoutError}
    assert took < 4 * bound_s
    assert at_once([client.ping] * CALLERS) == [True] * CALLERS
    client.close()


def test_a_closed_connection_is_replaced(redis_server: PrivateRedis) -> None:
    client = connect(Settings(redis_url=redis_server.url))
    at_once([client.ping] * CALLERS)
    with redis_server.client() as other:
        other.client_kill_filter(_type="normal", skipme=True)
    assert at_once([client.ping] * CALLERS) == [True] * CALLERS
    client.close()


KILLING = """
from gevent import monkey
monkey.patch_all()
import gevent, itertools, sys
from textgen.settings import Settings
from textgen.store import autopipeline
from textgen.store.connection import connect

lots = itertools.count()

class Call(autopipeline._Call):
    def close(self):
        self.greenlet = gevent.getcurrent()
        super().close()

    def open(self):
        if self.others is not None and next(lots) % 5 == 0:  # just as it is to send what others wait for
            self.greenlet.kill(block=False)
        super().open()

autopipeline._Call = Call
client = connect(Settings(redis_url=sys.argv[1]))
client.ping()
told, ended = [], []

def caller(number):
    for n in range(50):
        try:
            client.set(f"{number}", n)
        except Exception as exc:
            told.append(type(exc).__name__)
    ended.append(number)

callers = [gevent.spawn(caller, n) for n in range(200)]
for victim in callers[:50]:
    gevent.sleep(0.001)
    victim.kill(block=False)  # wherever it is
gevent.joinall(callers, timeout=30)
assert all(one.dead for one in callers), "callers hang"
assert ended and len(ended) < 200, "none was killed, or all were"
assert all(client.get(f"{n}") == "49" for n in ended)
assert set(told) <= {"ConnectionError"}, told
assert client._under_way == 0
"""


def test_greenlets_that_are_killed_take_nobody_with_them(redis_server: PrivateRedis) -> None:
    url = redis_server.url_of(redis_server.new_database())
    done = subprocess.run(
        [sys.executable, "-c", KILLING, url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
