"""An engine that asks for the end of its process gets it where the process is its own, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WorkerProcess


@pytest.mark.parametrize("pool", ["threads", "prefork", "gevent", "solo"])
def test_an_engine_that_exits_fails_its_task_and_costs_no_slot(
    pool: str, stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env, slots = stack_env("rabbitmq", TEXTGEN_MAX_ATTEMPTS=2), 1 if pool == "solo" else 2
    with application(env):
        from textgen import client
        from textgen.tasks import generate

        worker = start_worker(env, pool, slots).wait_ready()
        plan = {"mock": {"failure": "exits", "after": 2}}
        # more than there are slots
        tasks = [generate.delay("Hello", metadata=plan).id for _ in range(slots + 1)]
        records = [client.wait(task_id, 40) for task_id in tasks]
        assert client.wait(generate.delay("Hello").id, 20).status == "COMPLETED"
        assert worker.is_alive
        wait_until(lambda: len(client.dead_letters(10)) == len(tasks), 20, "they are dead letters")
    assert {(r.status, r.attempt, r.failures) for r in records} == {("FAILED", 2, 2)}
    assert {r.error.type for r in records if r.error} == {
        "worker_lost" if pool == "prefork" else "TransientEngineError"
    }
    assert all(record.result for record in records), "what it had written is kept"
