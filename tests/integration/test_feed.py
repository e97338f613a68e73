"""Following logs that are longer than the part of them that is kept in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services import PrivateRedis
from textgen.lifecycle import Record, Status, new_task_id
from textgen.settings import Settings
from textgen.store import Store, log, subscriber
from textgen.store.answers import Terms
from textgen.store.connection import connect
from textgen.store.feed import KEPT
from textgen.store.following import Following


@pytest.fixture
def store(redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(subscriber, "_subscribers", {})  # of the process, and so of another store
    client = connect(Settings(redis_url=redis_server.url_of(redis_server.new_database())))
    yield Store(client, 60)
    client.close()


def begun(store: Store) -> Record:
    """A task whose attempt has written nothing yet; its token is `token`."""
    submitted = store.submit(Record(new_task_id(), prompt="hello"), Terms(60_000, 0, "print"), 600)
    assert submitted.terms is not None
    claimed = store.claim(submitted.record, submitted.terms, "token", "worker").record
    assert claimed is not None
    return claimed


def write(store: Store, record: Record, pieces: range) -> None:
    for number in pieces:
        store.append(record.task_id, "token", number, f" {number}")


def finish(store: Store, record: Record) -> None:
    store.move(record.but(status=Status.COMPLETED, result=""), token="token")


@pytest.mark.parametrize("after", [None, "5-1", f"{KEPT + 1}-1"])
@pytest.mark.parametrize("pieces", [10, KEPT - 4, KEPT, KEPT + 150, log.PAGE + 2 * KEPT + 1])
def test_a_finished_log_is_followed_from_anywhere(store: Store, pieces: int, after: str | None) -> None:
    record = begun(store)
    write(store, record, range(pieces))
    finish(store, record)
    whole = log.read(store, record.task_id, limit=10_000)
    behind = int((after or "0").partition("-")[0])
    if behind > len(whole):
        return
    found = [event for event in Following(store, record.task_id, after) if event]
    assert found == whole[behind:]


def test_those_who_join_at_different_times_all_get_all(store: Store) -> None:
    record = begun(store)
    followers = []
    for first in range(0, 5 * KEPT, KEPT // 2):
        write(store, record, range(first, first + KEPT // 2))
        followers.append(Following(store, record.task_id))
        assert next(followers[-1])
    finish(store, record)
    whole = log.read(store, record.task_id, limit=10_000)
    for follower in followers:
        assert [event for event in follower if event] == whole[1:]
