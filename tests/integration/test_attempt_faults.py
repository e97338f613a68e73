"""An attempt at whose end the store is asked for what it cannot do: it fails at once, and says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.services import PrivateRedis
from textgen import attempt, persistence
from textgen.claims import Worker
from textgen.draft import Writer
from textgen.engines.base import Chunk, Engine, EngineRequest, Finish
from textgen.gate import Gate
from textgen.heartbeat import Heartbeat
from textgen.lifecycle import Record, Status, Usage, new_task_id
from textgen.messages import Delivery
from textgen.settings import Settings
from textgen.store import Store
from textgen.store.answers import Terms
from textgen.store.connection import connect


class ScriptedEngine(Engine):
    """Yields what it is given."""

    name = "mock"
    pieces: tuple[Chunk | Finish, ...] = ()

    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        yield from self.pieces


@pytest.fixture
def worker(redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: pytest.fail("it is tried again"))
    monkeypatch.setattr(persistence, "time", clock)
    settings = Settings(redis_url=redis_server.url_of(redis_server.new_database()), engine="mock")
    store, engine = Store(connect(settings), 60), ScriptedEngine(settings)
    yield Worker(
        name="here",
        settings=settings,
        store=store,
        heartbeat=Heartbeat(store),
        writer=Writer(store),
        engine=lambda name: engine,
        runs=lambda name: True,
        gate=Gate(store, settings),
        settle=lambda task_id: None,
    )
    store.client.close()


def run(worker: Worker, *pieces: Chunk | Finish, **params: Any) -> Record:
    """An attempt at a new task, by an engine that yields `pieces`; the record that it leaves."""
    worker.engine("mock").pieces = pieces
    record = Record(new_task_id(), prompt="hello", params=params)
    submitted = worker.store.submit(record, Terms(60_000, 0, "print"), 600)
    assert submitted.terms is not None
    outcome = attempt.run(Delivery(submitted.record, submitted.terms), "token", worker)
    assert isinstance(outcome, attempt.Ended)
    assert outcome.by_us
    found = worker.store.get(record.task_id)
    assert found is not None
    return found


@pytest.mark.parametrize("params", [{}, {"response_format": {"type": "json_object"}}])
def test_an_engine_that_counts_in_fractions_fails_its_attempt_once(
    worker: Worker, params: dict[str, Any]
) -> None:
    usage = Usage(3, 2.5)
    record = run(worker, Chunk("some ", tokens=2), Finish("length", usage), **params)
    assert (record.status, record.result, record.attempt) == (Status.FAILED, "some ", 1)
    assert record.error is not None
    assert record.error.type == "EngineBug"
    assert record.usage == Usage(0, 2)
    control = worker.store.control(record.task_id)
    assert control is not None
    assert (control.spent_prompt, control.spent_completion) == (0, 2)


def test_text_that_the_store_will_never_take_fails_its_attempt_once(worker: Worker) -> None:
    piece = Chunk("some ", tokens=2.5)
    record = run(worker, piece, Finish("stop", Usage(3, 2)))
    assert (record.status, record.result, record.attempt) == (Status.FAILED, "some ", 1)
    assert record.error is not None
    assert (record.error.type, record.usage) == ("StoreBroken", None)
