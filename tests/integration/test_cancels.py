"""A cancel reaches a task also while nobody runs it: it waits for its next attempt, and never has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WorkerProcess


@pytest.mark.parametrize("kind", ["rabbitmq", "valkey"])
def test_a_task_that_waits_for_a_retry_is_cancelled_at_once_and_never_runs_again(
    kind: str, stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env = stack_env(kind)
    with application(env):
        from textgen import client
        from textgen.tasks import generate

        worker = start_worker(env, "threads", 1).wait_ready()
        plan = {"mock": {"failure": "transient", "times": 1, "retry_after_s": 4, "after": 2}}
        task_id = generate.delay("Hello", metadata=plan).id
        wait_until(lambda: client.get(task_id).failures == 1, 30, "its first attempt has failed")

        assert client.cancel(task_id).status == "CANCELLED"

        record = client.get(task_id)
        # its message comes back behind what is published now and waits as long
        later = generate.apply_async(("Hello",), countdown=5).id
        assert client.wait(later, 40).status == "COMPLETED"
        assert client.get(task_id) == record
        assert worker.is_alive
    assert (record.attempt, record.failures) == (1, 1)
