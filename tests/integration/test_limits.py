"""Each limit in time ends a task in FAILED with its own error type, in every pool."""

from collections.abc import Callable, Iterator

import pytest

from tests.environment import Environment
from textgen import client
from textgen.lifecycle import Record
from textgen.tasks import generate

SLOW = {"tokens": 600, "delay_s": 0.1}
HANGS = {"failure": "hangs", "after": 2}


@pytest.fixture(scope="module", params=["threads", "prefork", "gevent", "solo"])
def pool(request: pytest.FixtureRequest, live: Environment, module_start_worker: Callable) -> Iterator[str]:
    slots = 1 if request.param == "solo" else 2
    env = live | {"TEXTGEN_ATTEMPT_MARGIN_S": "1", "TEXTGEN_LEASE_S": "2"}
    worker = module_start_worker(env, request.param, slots).wait_ready()
    yield request.param
    worker.kill()


def _end(plan: dict, **limits: object) -> Record:
    task = generate.delay("hello", metadata={"mock": plan}, **limits)
    return client.wait(task.id, 30)


def test_an_attempt_past_its_limit_stops_at_the_next_piece(pool: str) -> None:
    record = _end(SLOW, attempt_timeout_s=1)
    assert (record.status, record.error.type) == ("FAILED", "attempt_timeout")
    assert record.result, "the text so far is kept"


def test_a_task_past_its_deadline_stops_at_the_next_piece(pool: str) -> None:
    record = _end(SLOW, deadline_s=1)
    assert (record.status, record.error.type) == ("FAILED", "deadline")


def test_a_task_that_waits_too_long_for_its_first_attempt_never_runs(pool: str) -> None:
    busy = [generate.delay("hello", metadata={"mock": SLOW}) for _ in range(3)]
    waiting = generate.delay("hello", queue_timeout_s=1)
    record = client.wait(waiting.id, 30)
    for task in busy:
        client.cancel(task.id)
    assert (record.status, record.error.type, record.attempt) == ("FAILED", "queue_timeout", 0)


@pytest.mark.parametrize("kind", ["threads", "gevent", "solo"])
def test_an_engine_that_hangs_ends_in_failed_at_the_limit(
    kind: str, live: Environment, start_worker: Callable
) -> None:
    env = live | {"TEXTGEN_ATTEMPT_MARGIN_S": "1", "TEXTGEN_LEASE_S": "2"}
    start_worker(env, kind, 1 if kind == "solo" else 2).wait_ready()
    record = _end(HANGS, attempt_timeout_s=1)
    assert (record.status, record.error.type) == ("FAILED", "attempt_hung")
    assert len(record.result.split()) == 2


def test_a_slot_comes_back_under_prefork_when_its_engine_hangs(
    live: Environment, start_worker: Callable
) -> None:
    env = live | {"TEXTGEN_ATTEMPT_MARGIN_S": "1", "TEXTGEN_LEASE_S": "2"}
    start_worker(env, "prefork", 1).wait_ready()
    assert _end(HANGS, attempt_timeout_s=1).error.type == "attempt_hung"
    assert _end({"tokens": 2}).status == "COMPLETED"
