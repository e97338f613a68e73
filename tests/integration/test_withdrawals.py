"""A submit that was refused leaves nothing, also where the store is in trouble together with the broker."""

from __future__ import annotations

from typing import Any

import pytest
from celery import _state

from tests.environment import Environment
from tests.processes import wait_until
from textgen import client, settlement
from textgen.errors import BrokerUnavailable, StoreUnavailable
from textgen.hooks import GenerateTask
from textgen.lifecycle import new_task_id
from textgen.requests import parse_request
from textgen.store import Store, keys, open_store
from textgen.tasks import generate


@pytest.fixture
def refused(live: Environment, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of tasks that no broker takes."""
    ids: list[str] = []

    def send(self: GenerateTask, record: Any, *_: Any) -> None:
        ids.append(record.task_id)
        raise BrokerUnavailable("no broker")

    monkeypatch.setattr(GenerateTask, "send", send)
    return ids


def submit() -> None:
    with pytest.raises(BrokerUnavailable):
        client.submit(parse_request({"prompt": "Hello", "engine": "mock"}))


def is_gone(task_id: str) -> bool:
    store = open_store()
    return store.get(task_id) is None and store.client.zscore(keys.OUTBOX, task_id) is None


def test_a_refused_submit_is_taken_back_though_redis_has_no_memory_left(
    refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, refuse = open_store().client, Store.refuse

    def without_memory(self: Store, task_id: str) -> bool:
        server.config_set("maxmemory", 1)
        try:
            return refuse(self, task_id)
        finally:
            server.config_set("maxmemory", 0)

    monkeypatch.setattr(Store, "refuse", without_memory)
    submit()
    assert is_gone(refused[0])
    control = open_store().control(refused[0])
    assert control is not None
    assert control.status == "CANCELLED"


def test_a_refused_submit_is_taken_back_as_soon_as_redis_is_there_again(
    refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, refuse = [], Store.refuse

    def away_at_first(self: Store, task_id: str) -> bool:
        tries.append(task_id)
        if len(tries) < 4:
            raise StoreUnavailable("away")
        return refuse(self, task_id)

    monkeypatch.setattr(Store, "refuse", away_at_first)
    submit()
    assert not is_gone(refused[0])
    wait_until(lambda: is_gone(refused[0]), 10, "it is taken back")
    submit()
    assert is_gone(refused[1])


def test_one_that_begins_to_run_before_redis_is_there_again_is_cancelled(
    refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def begins(self: Store, task_id: str) -> bool:
        tries.append(task_id)
        if len(tries) == 1:
            raise StoreUnavailable("away")
        record, control = self.get(task_id), self.control(task_id)
        assert record is not None
        assert control is not None
        self.claim(record, control.terms, "token", "worker")
        return False

    monkeypatch.setattr(Store, "refuse", begins)
    submit()
    wait_until(lambda: client.get(refused[0]).status == "CANCELLED", 10, "it is cancelled")


def test_what_is_let_in_for_a_refused_one_is_due_at_once(
    refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "settle", lambda *_: ["next"])
    submit()
    due = open_store().client.zscore(keys.OUTBOX, "next")
    open_store().unschedule("next")
    assert due is not None
    assert due <= open_store().now_ms()


def test_what_a_running_task_submits_is_left_to_the_outbox(refused: list[str]) -> None:
    _state._task_stack.push(generate)
    generate.push_request(id=new_task_id(), called_directly=False)
    try:
        task_id = generate.delay("Hello").id
    finally:
        generate.pop_request()
        _state._task_stack.pop()
    assert refused == [task_id]
    assert client.get(task_id).status == "PENDING"
    assert open_store().is_scheduled(task_id)
