"""Lanes of engines: a worker for remote calls beside one that holds the model, each with its own lanes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from celery import Celery

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from tests.unit.generation import model_file

QUEUE = "text_generation_tasks"
SHARED = ("-Q", f"{QUEUE},{QUEUE}.bulk")
OWN = ("-Q", f"{QUEUE}.local,{QUEUE}.local.bulk")
OF_MOCK = {"TEXTGEN_ENGINE": "openai", "OPENAI_API_KEY": "none", "TEXTGEN_ENGINE_LANES": "mock"}
#: Seconds that anything may take here at the most.
PATIENCE_S = 60

StackEnv = Callable[..., Environment]
StartWorker = Callable[..., WorkerProcess]


@pytest.fixture(params=["rabbitmq", "valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def with_model(stack_env: StackEnv, kind: str) -> Environment:
    """A stack whose default engine is the mock, and where the local one has its model."""
    model = {"TEXTGEN_LOCAL_MODEL": model_file(), "TEXTGEN_LOCAL_CONTEXT": 256}
    return stack_env(kind, TEXTGEN_LEASE_S=1, **model)


def submit(**fields: object) -> str:
    from textgen.tasks import generate

    return str(generate.delay("Name a river.", max_tokens=6, **fields).id)


def has_model(worker: WorkerProcess) -> bool:
    """Whether the model's file is mapped into its memory."""
    return model_file().name in Path(f"/proc/{worker.pid}/maps").read_text()


def ran(worker: WorkerProcess, tasks: list[str]) -> list[str]:
    return [task_id for task_id in tasks if f"[{task_id}] succeeded" in worker.log()]


def complete(tasks: list[str]) -> None:
    from textgen import client

    for task_id in tasks:
        record = client.wait(task_id, PATIENCE_S)
        assert record.status == "COMPLETED", record.error


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_for_remote_calls_holds_no_model(
    kind: str, pool: str, stack_env: StackEnv, start_worker: StartWorker
) -> None:
    env = with_model(stack_env, kind)
    with application(env):
        before = submit(engine="local")  # into the shared lane: there is no other yet
    env |= {"TEXTGEN_ENGINE_LANES": "local"}
    remote = start_worker(env, pool, 2, args=SHARED).wait_ready()
    model = start_worker(env, "threads", 2, args=OWN).wait_ready()
    with application(env):
        mocks = [submit(lane=lane) for lane in ("interactive", "bulk") for _ in range(4)]
        locals_ = [submit(engine="local", lane=lane) for lane in ("interactive", "bulk") for _ in range(2)]
        complete([*mocks, *locals_, before])

    tasks = [*mocks, *locals_, before]
    wait_until(lambda: ran(model, tasks) == [*locals_, before], PATIENCE_S, "all of the model are logged")
    wait_until(lambda: ran(remote, tasks) == mocks, PATIENCE_S, "all of the mock are logged")
    assert "engines are left to other workers" in remote.log()
    assert "sent on to the lane of its engine" in remote.log()
    assert (has_model(remote), has_model(model)) == (False, True)


def test_a_worker_without_q_consumes_every_lane(
    kind: str, stack_env: StackEnv, start_worker: StartWorker
) -> None:
    env = with_model(stack_env, kind) | {"TEXTGEN_ENGINE_LANES": "local"}
    with application(env):
        tasks = [submit(engine=engine, lane="bulk") for engine in ("local", "mock")]
        worker = start_worker(env).wait_ready()
        assert has_model(worker)
        complete([*tasks, submit(engine="local")])


def test_a_lane_that_does_not_exist_is_refused_at_the_start(
    stack_env: StackEnv, start_worker: StartWorker
) -> None:
    worker = start_worker(stack_env("rabbitmq"), args=OWN)
    assert worker.wait(PATIENCE_S) != 0
    assert f"{QUEUE}.local" in worker.log()


def test_a_killed_workers_task_goes_on_in_its_own_lane(
    kind: str, stack_env: StackEnv, start_worker: StartWorker
) -> None:
    env = stack_env(kind, TEXTGEN_LEASE_S=1, **OF_MOCK)
    with application(env):
        from textgen import client
        from textgen.tasks import generate

        own = ("-Q", f"{QUEUE}.mock")
        bystander = start_worker(env, args=SHARED).wait_ready()
        slow = {"mock": {"tokens": 20, "delay_s": 0.1}}
        task = generate.delay("Hello", engine="mock", max_tokens=100, metadata=slow)
        first = start_worker(env, args=own).wait_ready()
        wait_until(lambda: client.get(task.id).status == "PROCESSING", PATIENCE_S, "it runs")
        first.kill()
        second = start_worker(env, args=own).wait_ready()
        record = client.wait(task.id, PATIENCE_S)

    assert (record.status, record.attempt) == ("COMPLETED", 2)
    wait_until(lambda: ran(second, [task.id]), PATIENCE_S, "it is logged")
    assert not ran(bystander, [task.id])


def lose(app: Celery, how: str) -> None:
    """Lose all messages of the mock's lane."""
    name = f"{QUEUE}.mock"
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        assert (channel.queue_purge(name) if how == "purged" else channel.queue_delete(name)) is not None


@pytest.mark.parametrize(
    ("kind", "how"), [("rabbitmq", "purged"), ("rabbitmq", "deleted"), ("valkey", "purged")]
)
def test_what_is_lost_with_an_engines_queue_is_published_again(
    kind: str, how: str, stack_env: StackEnv, start_worker: StartWorker
) -> None:
    env = stack_env(kind, TEXTGEN_LEASE_S=1, **OF_MOCK)
    with application(env) as app:
        task_id = submit(engine="mock")
        lose(app, how)
        start_worker(env, args=SHARED).wait_ready()  # its janitor looks after all lanes
        start_worker(env, args=("-Q", f"{QUEUE}.mock")).wait_ready()
        complete([task_id])


def test_waiting_tasks_count_those_of_their_own_lane(stack_env: StackEnv, start_web: Callable) -> None:
    web: WebProcess = start_web(stack_env("valkey", **OF_MOCK))
    with httpx.Client(base_url=web.url, timeout=20) as http:

        def waiting(**fields: object) -> str:
            return str(http.post("/v1/tasks", json={"prompt": "Hello", **fields}).json()["task_id"])

        tasks = [
            waiting(),
            waiting(engine="mock"),
            waiting(engine="mock", lane="bulk"),
            waiting(engine="mock"),
        ]
        places = [http.get(f"/v1/tasks/{task_id}").json()["queue_position"] for task_id in tasks]
    assert places == [1, 1, 1, 2]


def test_an_owners_share_is_of_each_lane(stack_env: StackEnv, start_worker: StartWorker) -> None:
    env = stack_env("rabbitmq", TEXTGEN_OWNER_SHARE=1, **OF_MOCK)
    with application(env):
        from textgen import client

        tasks = [submit(engine="mock") for _ in range(6)]
        others = submit()  # of the default engine: it waits in another lane, and behind nobody
        assert client.overview().queues == {
            QUEUE: 1,
            f"{QUEUE}.bulk": 0,
            f"{QUEUE}.mock": 1,
            f"{QUEUE}.mock.bulk": 0,
            f"{QUEUE}.dead": 0,
        }
        start_worker(env, args=("-Q", f"{QUEUE}.mock")).wait_ready()
        complete(tasks)
        assert client.get(others).status == "PENDING"
