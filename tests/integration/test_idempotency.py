"""A request that is sent again under its key leads to the same task, whatever happened the first time."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from textgen import client, idempotency
from textgen.caller import Caller
from textgen.errors import (
    BrokerUnavailable,
    IdempotencyKeyReused,
    InvalidRequest,
    StoreUnavailable,
    SubmitInFlight,
)
from textgen.hooks import GenerateTask
from textgen.lifecycle import Status
from textgen.requests import parse_request
from textgen.store import keys, open_store


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def web(live: Environment, start_web: Callable[..., WebProcess]) -> str:
    return str(start_web(live, workers=2).url)


def post(url: str, key: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/tasks", json={"prompt": "Hello", **body}, headers={"Idempotency-Key": key})


def test_a_repeated_request_is_answered_as_the_first(
    web: str, live: Environment, key: str, start_worker: Callable[..., WorkerProcess]
) -> None:
    first = post(web, key)
    start_worker(live).wait_ready()
    task_id = first.json()["task_id"]
    assert client.wait(task_id, 30).status is Status.COMPLETED
    again = post(web, key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"


def test_another_request_under_the_same_key_is_refused(web: str, live: Environment, key: str) -> None:
    assert post(web, key).status_code == 202
    answer = post(web, key, max_tokens=7)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:textgen:problem:idempotency-key-reused"


@pytest.mark.parametrize("wrong", ["", "x" * 256, "a\tb"])
def test_what_is_no_key_is_refused(web: str, wrong: str) -> None:
    assert post(web, wrong).status_code == 400


def test_a_hundred_at_once_make_one_task(web: str, live: Environment, key: str) -> None:
    before = open_store().client.zcard(keys.CREATED)
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda _: post(web, key), range(100)))
    assert set(Counter(answer.status_code for answer in answers)) <= {202, 409}
    assert all(answer.headers["Retry-After"] == "1" for answer in answers if answer.status_code == 409)
    ids = {answer.json()["task_id"] for answer in answers if answer.status_code == 202}
    assert len(ids) == 1
    assert open_store().client.zcard(keys.CREATED) == before + 1


def test_owners_keys_are_apart(live: Environment, key: str) -> None:
    request = parse_request({"prompt": "Hello"})
    made = [idempotency.submit(request, key, Caller(owner)) for owner in ("ann", "bob", "ann")]
    assert made[0][0].task_id == made[2][0].task_id != made[1][0].task_id
    assert [is_replay for _, is_replay in made] == [False, False, True]


def test_a_refused_submit_frees_its_key(live: Environment, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    request = parse_request({"prompt": "Hello"})
    refused: list[str] = []

    def refuse(self: GenerateTask, record: Any, *rest: Any) -> None:
        refused.append(record.task_id)
        raise BrokerUnavailable("no")

    with monkeypatch.context() as patch:
        patch.setattr(GenerateTask, "send", refuse)
        with pytest.raises(BrokerUnavailable):
            idempotency.submit(request, key)
    record, is_replay = idempotency.submit(request, key)
    assert not is_replay
    assert record.task_id not in refused


def test_a_task_that_was_accepted_is_told_so_though_its_key_could_not_be_settled(
    live: Environment, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textgen.store import idempotency as kept

    def fail(*_: object) -> None:
        raise StoreUnavailable("gone for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(kept, "settle", fail)
        first, was_known = idempotency.submit(parse_request({"prompt": "Hello"}), key)
    wait_until(lambda: not open_store().is_scheduled(first.task_id), 10, "it is published")
    again, is_known = idempotency.submit(parse_request({"prompt": "Hello"}), key)
    assert (was_known, is_known, again.task_id) == (False, True, first.task_id)


def test_one_that_died_before_it_freed_its_key_does_not_keep_it(
    live: Environment, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a submit that left its tombstone, and whose process was killed then."""
    request = parse_request({"prompt": "Hello"})
    monkeypatch.setattr("textgen.store.idempotency.release", lambda *rest: None)
    with monkeypatch.context() as patch:
        patch.setattr(GenerateTask, "_publish", _unavailable)
        with pytest.raises(BrokerUnavailable):
            idempotency.submit(request, key)
    monkeypatch.undo()
    assert idempotency.submit(request, key)[1] is False


def _unavailable(*_: Any) -> None:
    raise BrokerUnavailable("no")


def test_one_that_is_not_decided_is_waited_for(
    live: Environment, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = parse_request({"prompt": "Hello"})
    publishes, may_go_on = threading.Event(), threading.Event()
    publish = GenerateTask._publish

    def slow(*args: Any) -> None:
        publishes.set()
        assert may_go_on.wait(30)
        publish(*args)

    monkeypatch.setattr(GenerateTask, "_publish", slow)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(idempotency.submit, request, key)
        assert publishes.wait(30)
        with pytest.raises(SubmitInFlight):
            idempotency.submit(request, key)
        may_go_on.set()
        record, _ = first.result(30)
    assert idempotency.submit(request, key) == (record, True)


def test_one_that_died_before_its_publish_is_found_once_the_outbox_has_published_it(
    live: Environment, key: str, monkeypatch: pytest.MonkeyPatch, start_worker: Callable[..., WorkerProcess]
) -> None:
    request = parse_request({"prompt": "Hello"})

    class Killed(BaseException):
        pass

    def dies(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(GenerateTask, "send", dies)
        with pytest.raises(Killed):
            idempotency.submit(request, key)
    with pytest.raises(SubmitInFlight):
        idempotency.submit(request, key)
    store = open_store()
    [task_id] = store.client.zrange(keys.OUTBOX, -1, -1)
    store.client.zadd(keys.OUTBOX, {task_id: 0})
    start_worker(live).wait_ready()
    wait_until(lambda: not store.is_scheduled(task_id), 30, "the outbox has published it")
    record, is_replay = idempotency.submit(request, key)
    assert (record.task_id, is_replay) == (task_id, True)


def test_python_and_remote_clients_take_a_key(web: str, live: Environment, key: str) -> None:
    with client.TextGenerationProducer() as direct, client.TextGenerationProducer(url=web) as remote:
        task_id = direct.create_task("Hello", idempotency_key=key)
        assert remote.create_task("Hello", idempotency_key=key) == task_id
        with pytest.raises(IdempotencyKeyReused):
            remote.create_task("Goodbye", idempotency_key=key)
        with pytest.raises(InvalidRequest):
            direct.create_task("Hello", idempotency_key="")
