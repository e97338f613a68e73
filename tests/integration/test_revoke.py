"""Every way to revoke that Celery knows cancels a running task, in every pool, and for good."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.environment import Environment, of_process
from tests.processes import wait_until
from textgen import client
from textgen.tasks import generate

SLOW = {"mock": {"delay_s": 0.05, "tokens": 2000}}


@pytest.fixture(scope="module", params=["threads", "prefork", "gevent", "solo"])
def env(
    request: pytest.FixtureRequest, live: Environment, module_start_worker: Callable
) -> Iterator[Environment]:
    worker = module_start_worker(live, request.param, 1 if request.param == "solo" else 2).wait_ready()
    yield live
    worker.kill()


@pytest.fixture
def running(env: Environment) -> str:
    task_id = generate.delay("hello", metadata=SLOW).id
    wait_until(lambda: client.get(task_id).status == "PROCESSING", 30, "the task runs")
    wait_until(lambda: next(e for e in client.stream(task_id) if e and e.type == "chunk"), 30, "it writes")
    return task_id


def _celery(env: Environment, *args: str) -> None:
    # a worker of the solo pool answers only between tasks: the reply is not what is waited for
    command = [sys.executable, "-m", "celery", "-A", "textgen", "control", "--timeout", "1", *args]
    subprocess.run(command, env=of_process(env), capture_output=True, timeout=60, check=False)


def _assert_cancelled(task_id: str) -> None:
    record = client.wait(task_id, 5)
    assert record.status == "CANCELLED"
    assert record.result, "the text so far is kept"
    assert record.usage.completion_tokens > 0


def test_celery_control_revoke_cancels(env: Environment, running: str) -> None:
    _celery(env, "revoke", running)
    _assert_cancelled(running)


def test_celery_control_terminate_cancels(env: Environment, running: str) -> None:
    _celery(env, "terminate", "SIGTERM", running)
    _assert_cancelled(running)


def test_revoke_of_a_result_cancels_and_the_slot_comes_back(env: Environment, running: str) -> None:
    generate.AsyncResult(running).revoke(terminate=True)
    _assert_cancelled(running)
    assert generate.delay("hello").get(timeout=20)
