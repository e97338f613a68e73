"""Entries of the schedules, and that none can hold the janitor up."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from tests.processes import wait_until
from tests.services import PrivateRedis
from textgen.heartbeat import Heartbeat, Running
from textgen.lifecycle import Record, Status, new_task_id
from textgen.store import Store, keys
from textgen.store.answers import Terms, Verdict
from textgen.store.schedules import Schedule


@pytest.fixture
def store(redis_server: PrivateRedis) -> Iterator[Store]:
    client = redis_server.client(redis_server.new_database())
    yield Store(client, lease_s=1)
    client.close()


@pytest.mark.parametrize("score", [0, 1.5, 1795491353998.087, 1e15 / 3])
def test_an_entry_is_settled_whatever_its_score_looks_like(store: Store, score: float) -> None:
    schedule = Schedule(store, keys.WATCH)
    store.client.zadd(keys.WATCH, {"a": score})
    [(member, read)] = schedule.due(10) or [("a", str(score))]
    schedule.settle(member, read)
    assert len(schedule) == 0


def test_an_entry_that_was_given_another_time_stays(store: Store) -> None:
    schedule = Schedule(store, keys.WATCH)
    store.client.zadd(keys.WATCH, {"a": 1})
    [(member, read)] = schedule.due(10)
    schedule.postpone(member, 2)
    schedule.settle(member, read)
    assert len(schedule) == 1


def test_nothing_is_due_of_a_task_that_has_ended(store: Store) -> None:
    submitted = store.submit(Record(new_task_id(), prompt="Hello"), Terms(60_000, 0), deadline_s=60)
    assert submitted.terms is not None
    taken = store.claim(submitted.record, submitted.terms, "token", "worker").record
    assert taken is not None
    schedules = [Schedule(store, name) for name in (keys.WATCH, keys.OUTBOX)]
    assert [len(one) for one in schedules] == [1, 1]
    store.move(taken.but(status=Status.COMPLETED, result="x"), token="token")
    assert [len(one) for one in schedules] == [0, 0]


class Counting(Store):
    """A store that counts how often leases are renewed."""

    renewals = 0

    def renew(self, task_id: str, token: str) -> Verdict:
        self.renewals += 1
        return super().renew(task_id, token)


def test_a_lease_that_text_renews_is_not_renewed_besides(redis_server: PrivateRedis) -> None:
    # never closed: the heartbeat's thread may be in a call until the process ends
    store = Counting(redis_server.client(redis_server.new_database()), lease_s=1)
    submitted = store.submit(Record(new_task_id(), prompt="Hello"), Terms(60_000, 0), deadline_s=60)
    assert submitted.terms is not None
    taken = store.claim(submitted.record, submitted.terms, "token", "worker").record
    assert taken is not None
    running = Running(taken, "token", limit_s=60, renewed=time.monotonic() + 1)
    with Heartbeat(store).keeping(running):
        wait_until(lambda: store.renewals, 20, "it is renewed once text stays away")
        assert time.monotonic() >= running.renewed


def test_a_submit_that_redis_carries_out_too_late_has_no_effect(redis_server: PrivateRedis) -> None:
    """Given a Redis that was frozen while a submit was sent to it."""
    database = redis_server.new_database()
    impatient = redis.Redis.from_url(
        redis_server.url_of(database), decode_responses=True, socket_timeout=0.5, retry=None
    )
    store, record = Store(impatient, lease_s=1, timeout_s=0.5), Record(new_task_id(), prompt="Hello")
    store.now_ms()
    redis_server.pause()
    try:
        with pytest.raises(Exception, match="Timeout"):
            store.submit(record, Terms(ttl_ms=1000, deadline_ms=0), deadline_s=60)
    finally:
        redis_server.resume()
    client = redis_server.client(database)
    # what was sent before it is carried out with it, and leaves an entry that nobody acts on
    wait_until(lambda: client.zscore(keys.OUTBOX, record.task_id), 10, "the submit was carried out")
    assert not client.exists(keys.record(record.task_id), keys.state(record.task_id))
