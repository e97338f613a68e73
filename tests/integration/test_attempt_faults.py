"""An attempt whose store cannot do what it is asked for, is away when it begins, or loses the task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.processes import wait_until
from tests.services import PrivateRedis
from textgen import attempt, persistence
from textgen.claims import Worker
from textgen.draft import Draft, Writer
from textgen.engines.base import Chunk, Engine, EngineRequest, Finish
from textgen.errors import TransientEngineError
from textgen.gate import Gate
from textgen.heartbeat import Heartbeat
from textgen.lifecycle import Record, Status, Usage, new_task_id
from textgen.messages import Delivery
from textgen.settings import Settings
from textgen.store import Store, keys, log
from textgen.store.answers import Claim, Terms, Transition
from textgen.store.connection import connect

#: What a scripted engine does next.
Piece = Chunk | Finish | Callable[[], None]


class ScriptedEngine(Engine):
    """Yields what it is given, and calls what it is given to call."""

    name = "mock"
    pieces: tuple[Piece, ...] = ()

    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        for piece in self.pieces:
            if isinstance(piece, (Chunk, Finish)):
                yield piece
            else:
                piece()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateRedis]:
    with PrivateRedis(tmp_path) as made:
        yield made


def make_worker(url: str) -> Worker:
    settings = Settings(redis_url=url, engine="mock")
    store, engine = Store(connect(settings), 60), ScriptedEngine(settings)
    return Worker(
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


@pytest.fixture
def patient(redis_server: PrivateRedis) -> Iterator[Worker]:
    made = make_worker(redis_server.url_of(redis_server.new_database()))
    yield made
    made.store.client.close()


@pytest.fixture
def worker(patient: Worker, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """One that repeats nothing."""
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: pytest.fail("it is tried again"))
    monkeypatch.setattr(persistence, "time", clock)
    return patient


def submit(worker: Worker, **params: Any) -> Delivery:
    submitted = worker.store.submit(
        Record(new_task_id(), prompt="hello", params=params), Terms(60_000, 0, "print"), 600
    )
    assert submitted.terms is not None
    return Delivery(submitted.record, submitted.terms)


def attempt_at(
    delivery: Delivery, worker: Worker, token: str, *pieces: Piece
) -> attempt.Parked | attempt.Ended:
    worker.engine("mock").pieces = pieces
    return attempt.run(delivery, token, worker)


def run(worker: Worker, *pieces: Chunk | Finish, **params: Any) -> Record:
    """An attempt at a new task, by an engine that yields `pieces`; the record that it leaves."""
    delivery = submit(worker, **params)
    outcome = attempt_at(delivery, worker, "token", *pieces)
    assert isinstance(outcome, attempt.Ended)
    assert outcome.by_us
    found = worker.store.get(delivery.record.task_id)
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


def lose(worker: Worker) -> None:
    """Have Redis lose all that it holds, and the heartbeat notice."""
    worker.store.client.flushdb()
    running = list(worker.heartbeat._running)
    for one in running:
        one.renewed = float("-inf")
    worker.heartbeat.beat(running)


def fail() -> None:
    raise TransientEngineError("not now")


def test_a_task_that_redis_lost_goes_on_where_it_was(worker: Worker) -> None:
    delivery = submit(worker)
    quiet, pieces = Chunk("", tokens=0), (Chunk("some ", 1, 7), Chunk("text", 2), Finish("stop", Usage()))
    ended = attempt_at(delivery, worker, "one", pieces[0], lambda: lose(worker), quiet, *pieces[1:])
    assert ended.record is not None
    assert (ended.record.status, ended.record.result) == (Status.COMPLETED, "some text")
    assert ended.record.usage == Usage(7, 3)
    assert log.text_of(worker.store, delivery.record.task_id, 1) == "some text"


def test_a_task_that_redis_lost_is_back_while_its_engine_is_silent(worker: Worker) -> None:
    delivery, seen = submit(worker), []
    task_id = delivery.record.task_id

    def look() -> None:
        record = worker.store.get(task_id)
        seen.append((record and record.status, log.text_of(worker.store, task_id, 1)))

    ended = attempt_at(
        delivery,
        worker,
        "one",
        Chunk("some "),
        lambda: lose(worker),
        look,
        Chunk("text"),
        Finish("stop", Usage()),
    )
    assert seen == [(Status.PROCESSING, "some ")]
    assert ended.record is not None
    assert (ended.record.status, ended.record.result) == (Status.COMPLETED, "some text")
    assert log.text_of(worker.store, task_id, 1) == "some text"


def test_a_task_that_redis_lost_while_its_engine_hangs_fails_at_its_limit(worker: Worker) -> None:
    delivery = submit(worker)

    def hang() -> None:
        [running] = worker.heartbeat._running
        running.limit_s = -60.0
        lose(worker)

    with capture_logs() as logged:
        ended = attempt_at(delivery, worker, "one", Chunk("some "), hang, Chunk("text"))
    assert [line["slots_lost"] for line in logged if line["event"] == "engine hangs and keeps its slot"] == [
        1
    ]
    assert ended == attempt.Ended(worker.store.get(delivery.record.task_id), by_us=True)
    assert ended.record is not None
    assert ended.record.error is not None
    assert (ended.record.error.type, ended.record.result) == ("attempt_hung", "some ")


def test_a_task_that_is_lost_before_its_end_has_its_text_in_its_log(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery, move = submit(worker), worker.store.move

    def lose_and_move(*args: Any, **named: Any) -> Transition:
        monkeypatch.undo()
        worker.store.client.flushdb()
        return move(*args, **named)

    monkeypatch.setattr(worker.store, "move", lose_and_move)
    ended = attempt_at(delivery, worker, "one", Chunk("some "), Chunk("text"), Finish("stop", Usage(1, 1)))
    assert ended.record is not None
    assert (ended.record.status, ended.record.result) == (Status.COMPLETED, "some text")
    assert log.text_of(worker.store, delivery.record.task_id, 1) == "some text"


def test_a_task_that_redis_lost_before_its_engine_failed_is_tried_again(worker: Worker) -> None:
    delivery = submit(worker)
    parked = attempt_at(delivery, worker, "one", lambda: lose(worker), fail)
    assert isinstance(parked, attempt.Parked)
    stands = worker.store.get(delivery.record.task_id)
    assert stands == parked.record
    assert (stands.status, stands.failures) == (Status.PENDING, 1)


def test_what_cannot_be_brought_back_comes_back_with_its_message(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = submit(worker)
    with monkeypatch.context() as patch:
        patch.setattr(Draft, "restore", lambda draft: False)
        with pytest.raises(persistence.HandBack, match="lost the task"):
            attempt_at(delivery, worker, "one", lambda: lose(worker), Chunk("", tokens=0), Chunk("lost"))
    again = attempt_at(delivery, worker, "two", Chunk("text"), Finish("stop", Usage(1, 1)))
    assert again.record is not None
    assert (again.record.status, again.record.result) == (Status.COMPLETED, "text")


def test_an_attempt_past_its_limit_that_is_fenced_is_not_the_one_that_ended_the_task(worker: Worker) -> None:
    delivery = submit(worker)
    task_id = delivery.record.task_id

    def lose_lease() -> None:
        [running] = worker.heartbeat._running
        running.limit_s = -1.0
        assert worker.store.client.hset(keys.state(task_id), "token", "other") == 0

    outcome = attempt_at(delivery, worker, "one", Chunk("some "), lose_lease, Chunk("text"))
    assert outcome == attempt.Ended(None)
    assert worker.store.client.hget(keys.state(task_id), "status") == "PROCESSING"


def test_a_delivery_waits_for_a_store_that_is_away(
    server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, tries = make_worker(server.url), []
    delivery, claim = submit(worker), worker.store.claim

    def counted(*args: Any) -> Claim:
        tries.append(args)
        return claim(*args)

    monkeypatch.setattr(worker.store, "claim", counted)
    server.kill()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(attempt_at, delivery, worker, "one", Chunk("text"), Finish("stop", Usage(1, 1)))
        wait_until(lambda: len(tries) > 2 or asked.done(), 30, "claims are refused")
        server.start()
        record = asked.result(30).record
    assert record is not None
    assert (record.status, record.attempt) == (Status.COMPLETED, 1)
    worker.store.client.close()
