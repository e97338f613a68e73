"""Several workers on one queue: each task to one of them, one per slot and lane, the urgent first."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery

from tests.application import application
from tests.environment import Environment, new_folder, of_process
from tests.processes import wait_until
from tests.programs import WorkerProcess
from tests.services import PrivateRabbitMQ

QUEUE = "text_generation_tasks"
LANES = {"interactive": QUEUE, "bulk": f"{QUEUE}.bulk"}
WORKERS = 3
#: Seconds that anything may take here at the most.
PATIENCE_S = 60
#: What somebody's own program does, somewhere else on the machine.
PROGRAM = """
from textgen.tasks import generate
for n in range({count}):
    print(generate.delay(f"Prompt {{n}}", engine="mock", metadata={metadata}).id)
"""


def mock(**behaviour: Any) -> dict[str, Any]:
    return {"mock": behaviour}


def submit(prompt: str = "Hello", behaviour: dict[str, Any] | None = None, **fields: Any) -> str:
    from textgen.tasks import generate

    metadata = mock(**(behaviour or {}))
    return str(generate.delay(prompt, engine="mock", max_tokens=1000, metadata=metadata, **fields).id)


def log_of(task_id: str) -> list[Any]:
    """The event log of a task, to its end."""
    from textgen import client

    return [event for event in client.stream(task_id) if event is not None]


def states(task_id: str) -> list[str]:
    return [event.data["status"] for event in log_of(task_id) if event.type == "state"]


@pytest.fixture
def fleet(start_worker: Callable[..., WorkerProcess]) -> Callable[..., list[WorkerProcess]]:
    """`fleet(env, concurrency)`: three workers that are ready."""

    def start(env: Environment, concurrency: int) -> list[WorkerProcess]:
        workers = [start_worker(env, "threads", concurrency) for _ in range(WORKERS)]
        return [worker.wait_ready() for worker in workers]

    return start


# Each task once


def test_three_workers_work_off_200_tasks_each_once(
    stack_env: Callable[..., Environment], fleet: Callable[..., list[WorkerProcess]]
) -> None:
    env, behaviour = stack_env("rabbitmq"), {"delay_s": 0.01, "tokens": 5}
    workers = fleet(env, 4)
    with application(env) as app:
        program = PROGRAM.format(count=100, metadata=mock(**behaviour))
        elsewhere = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=new_folder("elsewhere"),
            env=of_process(env),
            stdout=subprocess.PIPE,
            text=True,
        )
        tasks = [submit(f"Prompt {n}", behaviour) for n in range(100)]
        tasks += elsewhere.communicate(timeout=PATIENCE_S)[0].split()
        assert len(set(tasks)) == 200

        from textgen import client

        for task_id in tasks:
            record = client.wait(task_id, PATIENCE_S)
            assert (record.status, record.attempt, record.failures) == ("COMPLETED", 1, 0)
            log = log_of(task_id)
            assert [e.data["status"] for e in log if e.type == "state"] == [
                "PENDING",
                "PROCESSING",
                "COMPLETED",
            ]
            text = "".join(event.data["text"] for event in log if event.type == "chunk")
            assert text == record.result, "no word came twice"
        ended = {worker.name: app.control.inspect([f"{worker.name}@localhost"]) for worker in workers}
        totals = [sum(next(iter(i.stats().values()))["total"].values()) for i in ended.values()]
    assert sum(totals) == 200, "no delivery was refused, as a second one of a task would be"
    assert min(totals) > 0, "every worker had a share"
    succeeded = Counter(task for worker in workers for task in tasks if f"[{task}] succeeded" in worker.log())
    assert succeeded == dict.fromkeys(tasks, 1)


# One task per slot and lane


def held(rabbitmq: PrivateRabbitMQ, vhost: str) -> dict[str, tuple[int, int]]:
    """Lane's queue → messages that workers hold, and that still wait for one."""
    what = ("name", "messages_unacknowledged", "messages_ready")
    rows = rabbitmq.ctl("list_queues", "-p", vhost, "-q", "--no-table-headers", *what).splitlines()
    cells = [row.split("\t") for row in rows if row]
    return {name: (int(held), int(ready)) for name, held, ready in cells if name in LANES.values()}


def reserved(app: Celery) -> dict[str, Counter[str]]:
    """Worker → how many tasks of each lane it has, running or not."""
    inspect = app.control.inspect(timeout=10, limit=WORKERS)
    found: dict[str, Counter[str]] = {}
    for worker, tasks in [*inspect.active().items(), *inspect.reserved().items()]:
        found.setdefault(worker, Counter()).update(task["delivery_info"]["routing_key"] for task in tasks)
    return found


def test_a_worker_of_one_slot_holds_one_task_per_lane(
    stack_env: Callable[..., Environment],
    fleet: Callable[..., list[WorkerProcess]],
    rabbitmq: PrivateRabbitMQ,
) -> None:
    env = stack_env("rabbitmq", PREFETCH_COUNT=1)
    vhost = urlsplit(env["CELERY_BROKER_URL"]).path.removeprefix("/")
    waiting = 4
    with application(env) as app:
        fleet(env, 1)
        for lane in LANES:
            for _ in range(WORKERS + waiting):
                submit("Hello", {"delay_s": 0.2, "tokens": 900}, lane=lane)

        shared = dict.fromkeys(LANES.values(), (WORKERS, waiting))
        wait_until(
            lambda: held(rabbitmq, vhost) == shared, PATIENCE_S, "each worker holds one task of each lane"
        )

        consumers = rabbitmq.ctl("list_consumers", "-p", vhost, "-q", "queue_name", "prefetch_count")
        of_lanes = [row.split("\t") for row in consumers.splitlines() if row.split("\t")[0] in LANES.values()]
        assert Counter(map(tuple, of_lanes)) == {(queue, "1"): WORKERS for queue in LANES.values()}
        assert list(reserved(app).values()) == [dict.fromkeys(LANES.values(), 1)] * WORKERS


# The urgent first


@pytest.mark.parametrize("kind", ["rabbitmq", "valkey"])
def test_the_most_urgent_of_the_waiting_tasks_runs_first(
    kind: str, stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env = stack_env(kind, TEXT_GENERATION_QUEUE_TYPE="classic", PREFETCH_COUNT=1)
    priorities = [*range(10)] * 2
    random.Random(1).shuffle(priorities)
    with application(env):
        from textgen import client

        tasks = {submit(f"Hello {n}", priority=priority): priority for n, priority in enumerate(priorities)}
        start_worker(env, "threads", 1)
        records = [client.wait(task_id, PATIENCE_S) for task_id in tasks]

    assert {record.status for record in records} == {"COMPLETED"}
    ran = sorted(records, key=lambda record: str(record.started_at))
    assert [tasks[record.task_id] for record in ran] == sorted(priorities, reverse=True)


def test_a_quorum_queue_has_the_levels_that_its_version_knows(
    rabbitmq: PrivateRabbitMQ,
    stack_env: Callable[..., Environment],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    env = stack_env("rabbitmq", PREFETCH_COUNT=1)
    with application(env):
        from textgen import client

        tasks = [submit(f"Hello {n}") for n in range(8)]
        urgent = [submit(f"Hello {n}", priority=6) for n in range(4)]
        worker = start_worker(env, "threads", 1)
        records = [client.wait(task_id, PATIENCE_S) for task_id in [*tasks, *urgent]]

    ran = [record.task_id for record in sorted(records, key=lambda record: str(record.started_at))]
    if rabbitmq.version < (4,):
        assert "no priorities on quorum queues" in worker.log()
        assert ran == [*tasks, *urgent], "in the order of arrival"
    else:
        # two of the urgent for each of the others
        assert set(urgent) <= set(ran[:6])
        assert [task_id for task_id in ran if task_id in urgent] == urgent
        assert [task_id for task_id in ran if task_id in tasks] == tasks
