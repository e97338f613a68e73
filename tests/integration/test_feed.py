"""Following logs that are longer than the part of them that is kept in memory."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterable
from itertools import islice
from typing import Any

import pytest
import redis

from tests.environment import Environment
from tests.processes import wait_until
from textgen.lifecycle import Event, Record, Status, new_task_id
from textgen.settings import get_settings
from textgen.store import Store, keys, log, open_store, subscriber
from textgen.store.answers import Terms
from textgen.store.feed import KEPT, Feed
from textgen.store.following import Following


@pytest.fixture
def store(live: Environment) -> Store:
    return open_store()


def begun(store: Store) -> Record:
    """A task whose attempt has written nothing yet; its token is `token`."""
    submitted = store.submit(Record(new_task_id(), prompt="hello"), Terms(60_000, 0, "print"), 600)
    assert submitted.terms is not None
    claimed = store.claim(submitted.record, submitted.terms, "token", "worker").record
    assert claimed is not None
    return claimed


def forget(store: Store, record: Record) -> None:
    """Have Redis lose a task, as it loses all when it is started empty."""
    store.client.delete(*(make(record.task_id) for make in keys.OF_TASK))


def restore(store: Store, record: Record) -> None:
    """Claim a task that Redis has lost, as the attempt does that runs it."""
    terms = Terms(60_000, int(store.now_ms()) + 600_000, "print")
    store.claim(record.but(status=Status.PENDING, attempt=0), terms, "token", "worker")


def write(store: Store, record: Record, pieces: range) -> None:
    for number in pieces:
        store.append(record.task_id, "token", number, f" {number}")


def finish(store: Store, record: Record) -> None:
    store.move(record.but(status=Status.COMPLETED, result=""), token="token")


def text_of(found: Iterable[Event | None]) -> str:
    """What a follower that heeds `reset` is left with."""
    text = ""
    for event in filter(None, found):
        text = "" if event.type == "reset" else text + event.data.get("text", "")
    return text


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


def test_a_follower_that_becomes_garbage_in_the_middle_of_a_call_holds_up_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = begun(store), begun(store)
    abandoned = Following(store, first.task_id)
    assert next(abandoned)
    del abandoned
    listeners = subscriber.Listener

    def collecting(*args: Any) -> Any:
        gc.collect()  # as an allocation may do it, with the lock held
        return listeners(*args)

    monkeypatch.setattr(subscriber, "Listener", collecting)
    other, told = Following(store, second.task_id), []
    thread = threading.Thread(target=lambda: told.append(next(other)), daemon=True)
    thread.start()
    thread.join(10)
    assert told
    channels = subscriber.subscriber(store)._channels
    wait_until(lambda: keys.events(first.task_id) not in channels, 10, "the first is let go")
    assert keys.events(second.task_id) in channels
    other.close()
    wait_until(lambda: keys.events(second.task_id) not in channels, 10, "so is the second")


@pytest.mark.parametrize("lost", [1, 5, KEPT + 10])
@pytest.mark.parametrize("written_anew", [3, 15, KEPT + 20])
def test_the_log_after_one_that_redis_lost_is_followed_from_its_beginning(
    store: Store, lost: int, written_anew: int
) -> None:
    record = begun(store)
    follower = Following(store, record.task_id, heartbeat_s=0.5)
    write(store, record, range(lost))
    found = list(islice(follower, 2 + lost))
    forget(store, record)
    restore(store, record)
    write(store, record, range(written_anew))
    finish(store, record)

    found += islice(follower, 2 * (lost + written_anew))  # or it might go on for ever

    assert follower.is_over
    assert text_of(found) == "".join(f" {number}" for number in range(written_anew))
    assert [event.data["reason"] for event in filter(None, found) if event.type == "reset"] == ["log_lost"]
    assert text_of(Following(store, record.task_id)) == text_of(found)


def test_a_log_that_redis_set_back_is_followed_anew_and_to_its_end(store: Store) -> None:
    record = begun(store)
    names = [make(record.task_id) for make in keys.OF_TASK]
    followers = [Following(store, record.task_id, heartbeat_s=0.5) for _ in range(2)]
    write(store, record, range(3))
    client = redis.Redis.from_url(get_settings().store)
    saved = {name: client.dump(name) for name in names if client.exists(name)}
    write(store, record, range(3, 13))
    found = [list(islice(follower, 15)) for follower in followers]
    for name, value in saved.items():
        client.restore(name, 600_000, value, replace=True)
    client.close()
    finish(store, record)

    for follower, seen in zip(followers, found, strict=True):
        seen += islice(follower, 40)
        assert follower.is_over
        assert text_of(seen) == " 0 1 2"


def test_what_is_announced_while_a_page_is_counted_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = begun(store)
    feed = Feed(store, record.task_id, threading.BoundedSemaphore())
    last = feed.after(None)[-1].id

    class Page(list[Event]):
        def __len__(self) -> int:
            monkeypatch.undo()
            write(store, record, range(1))
            feed.expire()
            return 0

    monkeypatch.setattr(log, "read", lambda *args: Page())
    feed.expire()
    assert [event.type for event in feed.after(last)] == ["chunk"]
