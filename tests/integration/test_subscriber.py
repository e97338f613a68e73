"""The one connection on which all waits of a process hear of changes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.environment import Environment
from tests.services import PrivateRedis
from textgen.errors import StoreUnavailable, UnknownTask
from textgen.lifecycle import Record, new_task_id
from textgen.store import Store, keys, open_store, subscriber
from textgen.store.subscriber import Subscriber


@pytest.fixture
def store(live: Environment) -> Store:
    return open_store()


@pytest.fixture
def heard(store: Store) -> Subscriber:
    return subscriber.subscriber(store)


def test_who_listens_before_the_subscription_takes_effect_looks_again_when_it_has(
    heard: Subscriber, redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "CONFIRM_S", 0.1)
    with heard.listening(new_task_id()) as first:
        assert first.confirmed.wait(5)
        redis_server.pause()
        try:
            with heard.listening(new_task_id()) as listener:
                assert not listener.confirmed.is_set()
                redis_server.resume()
                assert listener.wait(5)
        finally:
            redis_server.resume()


def test_who_listens_from_the_beginning_is_not_woken_by_that(heard: Subscriber) -> None:
    for _ in range(20):
        with heard.listening(new_task_id()) as listener:
            assert listener.confirmed.is_set()
            assert not listener.wait(0.01)


def test_a_connection_that_is_lost_again_and_again_is_made_anew_by_one_thread_at_a_time(
    heard: Subscriber, store: Store
) -> None:
    until = time.monotonic() + 5

    def listen() -> None:
        while time.monotonic() < until:
            with suppress(StoreUnavailable), heard.listening(new_task_id()):
                pass

    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(listen) for _ in range(4)]
        while time.monotonic() < until:
            store.client.client_kill_filter(_type="pubsub")
            time.sleep(0.02)  # part of the fault
    for run in runs:
        run.result()

    task_id = new_task_id()
    with heard.listening(task_id) as listener:
        assert listener.confirmed.wait(5), "the connection is read"
        listener.wait(0)
        store.client.publish(keys.events(task_id), "1-0 state")
        assert listener.wait(5)


def test_a_task_that_vanishes_when_time_is_up_is_unknown(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(new_task_id(), prompt="hello")
    found = iter((record, None))
    monkeypatch.setattr(store, "get", lambda task_id: next(found))
    with pytest.raises(UnknownTask, match="while it was waited for"):
        subscriber.wait_until_terminal(store, record.task_id, 0.0)
