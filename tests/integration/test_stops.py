"""A worker that is told to stop hands back what it does not finish: no failure, and no lease to wait for."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WorkerProcess

#: Longer than any grace here.
LONG = {"mock": {"delay_s": 0.1, "tokens": 100}}
COLD, WARM = signal.SIGQUIT, signal.SIGTERM
#: Pool, signal, and Celery's own options that make a cold stop a soft one.
STOPS = [
    # under gevent Celery's own handler fails, and the lease has to lapse
    *((pool, COLD, ()) for pool in ("threads", "prefork", "solo")),
    *((pool, WARM, ()) for pool in ("threads", "prefork", "gevent", "solo")),
    ("threads", COLD, ("--", "worker_soft_shutdown_timeout=1")),
]


@pytest.mark.parametrize(
    ("pool", "number", "args"), STOPS, ids=lambda value: getattr(value, "name", str(value))
)
def test_a_stop_hands_back_what_it_does_not_finish(
    pool: str,
    number: signal.Signals,
    args: tuple[str, ...],
    stack_env: Callable[..., Environment],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    env = stack_env("rabbitmq", TEXTGEN_SHUTDOWN_GRACE_S=1, TEXTGEN_LEASE_S=30)
    slots = 1 if pool == "solo" else 2
    with application(env):
        from textgen import client
        from textgen.tasks import generate

        worker = start_worker(env, pool, slots, args=args).wait_ready()
        tasks = [generate.delay("Hello", max_tokens=1000, metadata=LONG).id for _ in range(slots)]
        for task_id in tasks:
            wait_until(lambda: client.get(task_id).status == "PROCESSING", 30, "it runs")  # noqa: B023
        worker.signal(number)
        worker.wait(40)

        handed = [client.get(task_id) for task_id in tasks]
        assert {(record.status, record.failures) for record in handed} == {("PENDING", 0)}
        start_worker(env, "threads", slots).wait_ready()
        # before the lease would have run out
        ended = [client.wait(task_id, 29) for task_id in tasks]
        assert {(record.status, record.failures) for record in ended} == {("COMPLETED", 0)}
        # under gevent a worker that stops warm may take back what it has handed back, once or twice
        assert [after.attempt - before.attempt for before, after in zip(handed, ended, strict=True)] == (
            [1] * slots
        )
