"""Limits of providers over a fleet of real workers: tasks wait in the broker, not in slots."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WorkerProcess
from tests.provider_stub import ProviderStub

PATIENCE_S = 90
#: A minute, scaled down: for a few tasks, and for a fleet that has a good deal to do.
WINDOW_S, LONG_WINDOW_S = 3.0, 10.0
Start = Callable[..., None]


def settings(stub: ProviderStub, **limit: Any) -> dict[str, Any]:
    limits = {"openai": {"window_s": WINDOW_S, **limit}} if limit else {}
    return {
        "OPENAI_BASE_URL": f"{stub.url}/v1",
        "OPENAI_MODEL": "m",
        "TEXTGEN_ENGINE_LIMITS": json.dumps(limits),
    }


def submit(**fields: Any) -> str:
    from textgen.tasks import generate

    return str(generate.delay("Hello", **{"engine": "openai", "max_tokens": 10, **fields}).id)


def ended(task_id: str) -> Any:
    from textgen import client

    record = client.wait(task_id, PATIENCE_S)
    assert record.status.is_terminal, record
    return record


@pytest.mark.parametrize("kind", ["rabbitmq", "valkey"])
def test_a_fleet_keeps_to_a_limit_in_every_window_and_no_slot_sleeps(
    kind: str, stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    with ProviderStub(delay_s=0.05, limit=60, window_s=LONG_WINDOW_S) as stub:
        env = stack_env(kind, **settings(stub, requests=60, window_s=LONG_WINDOW_S))
        with application(env):
            with ThreadPoolExecutor(4) as threads:
                tasks = list(threads.map(lambda _: submit(), range(200)))
            workers = [start_worker(env, "threads", 2) for _ in range(3)]
            wait_until(lambda: len(stub.arrivals) >= 60, PATIENCE_S, "the first window is full")
            # the workers have six slots together, and many more tasks wait
            other = ended(submit(engine="mock", metadata={"mock": {"tokens": 1}}))
            waiting = 200 - len(stub.arrivals)
            records = [ended(task_id) for task_id in tasks]

    assert (other.status, len(workers)) == ("COMPLETED", 3)
    assert waiting > 3 * 2
    assert {(one.status, one.attempt, one.failures) for one in records} == {("COMPLETED", 1, 0)}
    assert stub.statuses == [200] * 200
    assert stub.most_in(LONG_WINDOW_S) <= 60


def test_tokens_are_kept_to_as_well(
    stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    with ProviderStub(delay_s=0.02) as stub:
        # a prompt of five characters is two tokens, and ten more may be written
        env = stack_env("rabbitmq", **settings(stub, tokens=12 * 8))
        with application(env):
            start_worker(env, "threads", 4).wait_ready()
            records = [ended(task_id) for task_id in [submit() for _ in range(20)]]
    assert {(one.status, one.attempt) for one in records} == {("COMPLETED", 1)}
    assert stub.most_in(WINDOW_S) == 8


def test_a_refusal_to_one_worker_keeps_all_away_for_as_long_as_it_says(
    stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    with ProviderStub(limit=1, window_s=1000, refusal={"Retry-After": "3"}) as stub:
        env = stack_env("rabbitmq", **settings(stub))
        with application(env):
            for worker in [start_worker(env, "threads", 1) for _ in range(2)]:
                worker.wait_ready()
            assert ended(submit()).status == "COMPLETED"
            refused = submit()
            wait_until(lambda: 429 in stub.statuses, PATIENCE_S, "one is refused")
            stub.does.limit = 0
            began = stub.arrivals[-1]
            records = [ended(task_id) for task_id in [submit() for _ in range(8)]]
            assert ended(refused).failures == 1
    assert {(one.status, one.attempt) for one in records} == {("COMPLETED", 1)}
    later = [at - began for at in stub.arrivals[2:]]
    assert min(later) >= 2.9
    assert max(later) - min(later) > 0.1, "they do not all come at once"
