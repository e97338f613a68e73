"""Dead letters for operators: listed, shown, replayed and purged, by command line and over HTTP."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.environment import Environment, of_process
from tests.processes import wait_until
from tests.programs import WebProcess

PLAN = {"mock": {"failure": "transient", "times": 2}}


@pytest.fixture(scope="module", params=["rabbitmq", "valkey"])
def env(
    request: pytest.FixtureRequest, module_stack_env: Callable, module_start_worker: Callable
) -> Environment:
    env = module_stack_env(request.param, TEXTGEN_MAX_ATTEMPTS=2)
    module_start_worker(env).wait_ready()
    return env


@pytest.fixture(scope="module")
def web(env: Environment, module_start_web: Callable) -> WebProcess:
    return module_start_web(env)


@pytest.fixture
def dead(web: WebProcess) -> Iterator[str]:
    """The id of a task that failed in both attempts allowed."""
    made = httpx.post(f"{web.url}/v1/tasks", json={"prompt": "hello", "metadata": PLAN}).json()
    url = f"{web.url}/v1/dead-letters/{made['task_id']}"
    wait_until(lambda: httpx.get(url).status_code == 200, 30, "the task is a dead letter")
    yield made["task_id"]
    httpx.delete(f"{web.url}/v1/dead-letters").raise_for_status()


def _cli(env: Environment, *args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from textgen.cli import main; main()", "dead", *args]
    return subprocess.run(command, env=of_process(env), capture_output=True, text=True, timeout=60)


def test_a_task_that_failed_in_every_attempt_is_a_dead_letter_with_its_history(
    web: WebProcess, dead: str
) -> None:
    letter = httpx.get(f"{web.url}/v1/dead-letters/{dead}").json()
    assert letter["reason"].startswith("TransientEngineError")
    assert [attempt["ended"] for attempt in letter["attempts"]] == ["PENDING", "FAILED"]
    assert letter["trace_id"] == dead
    assert dead in [one["id"] for one in httpx.get(f"{web.url}/v1/dead-letters").json()["data"]]
    assert httpx.get(f"{web.url}/v1/tasks/{dead}").json()["status"] == "FAILED"


def test_a_replay_is_a_new_task_that_names_the_old_one(web: WebProcess, dead: str) -> None:
    answer = httpx.post(f"{web.url}/v1/dead-letters/{dead}/replay")
    assert answer.status_code == 202
    record = httpx.get(f"{web.url}{answer.headers['location']}?wait_s=30").json()
    assert record["replay_of"] == dead
    assert record["task_id"] != dead
    assert record["prompt"] == "hello"


def test_an_unknown_dead_letter_is_404(web: WebProcess) -> None:
    answer = httpx.post(f"{web.url}/v1/dead-letters/{'0' * 36}/replay")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_command_line_lists_shows_replays_and_purges(env: Environment, dead: str) -> None:
    listed = _cli(env, "list", "--json")
    assert dead in [one["id"] for one in json.loads(listed.stdout)]
    assert "hello" not in listed.stdout
    assert json.loads(_cli(env, "show", dead, "--json").stdout)["request"]["prompt"] == "hello"
    assert json.loads(_cli(env, "replay", dead, "--json").stdout)["replay_of"] == dead
    assert json.loads(_cli(env, "purge", "--yes", "--json").stdout)["purged"] >= 1
    assert _cli(env, "show", dead).returncode == 3
