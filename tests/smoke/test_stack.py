"""`textgen up`, `down` and `ps` with all their processes, as somebody at a shell uses them."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest
import redis

from tests.environment import CACHE_HOME, Environment, new_folder, of_process
from tests.processes import wait_until

TEXTGEN = str(Path(sys.executable).with_name("textgen"))
MOCK = ("--engine", "mock")
ANY_PORTS = ("--port", "0", "--flower-port", "0")


class Stack:
    """One state directory, and the commands on it. Its folder tells its processes from all others."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.state_dir = folder, folder / "stack"
        own = {"XDG_STATE_HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "cache")}
        self.env: Environment = of_process(own | variables)
        self.address: dict[str, Any] = {}

    def run(
        self, command: str, *args: str, state_dir: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one textgen command to its end. It hangs where a detached stack keeps a pipe open."""
        full = [TEXTGEN, command, "--state-dir", str(state_dir or self.state_dir), *args]
        return subprocess.run(
            full, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=150, check=False
        )

    def up(self, *args: str) -> Self:
        """Start it detached, on any ports."""
        done = self.run("up", "--json", "--detach", *ANY_PORTS, *args)
        assert done.returncode == 0, done.stderr
        self.address = json.loads(done.stdout)
        return self

    def ps(self) -> dict[str, dict[str, Any]]:
        """Name → row of `textgen ps`."""
        rows = json.loads(self.run("ps", "--json").stdout)["processes"]
        return {row["name"]: row for row in rows}

    def submit(self, prompt: str, **fields: Any) -> str:
        """Submit over HTTP; returns the id."""
        answer = httpx.post(f"{self.address['web']}/v1/tasks", json={"prompt": prompt, **fields}, timeout=20)
        assert answer.status_code == 202, answer.text
        return answer.json()["task_id"]

    def outcome(self, task_id: str, wait_s: float = 30) -> dict[str, Any]:
        """The record once it is terminal."""
        url = f"{self.address['web']}/v1/tasks/{task_id}"
        return httpx.get(url, params={"wait_s": wait_s}, timeout=wait_s + 10).json()

    def processes(self) -> list[psutil.Process]:
        """All processes that run with this stack's environment, or on its files: Valkey hides the former."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get("XDG_STATE_HOME") == self.env["XDG_STATE_HOME"]:
                return True
            return alive and any(
                Path(file.path).is_relative_to(self.state_dir) for file in process.open_files()
            )
        return False

    def end(self) -> None:
        """Leave nothing behind, however the test went."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def make_stack() -> Iterator[Callable[..., Stack]]:
    stacks: list[Stack] = []

    def make(**variables: str) -> Stack:
        stacks.append(Stack(new_folder("stack"), **variables))
        return stacks[-1]

    yield make
    for stack in stacks:
        stack.end()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack on the mock engine that runs as long as this module; a test leaves it healthy."""
    made = Stack(new_folder("stack"))
    try:
        yield made.up(*MOCK)
    finally:
        made.end()


def test_up_announces_a_stack_that_is_healthy(stack: Stack) -> None:
    address = stack.address
    assert set(address) == {"web", "flower", "broker_url", "redis_url", "engine", "state_dir", "pids"}
    assert set(address["pids"]) == {"supervisor", "valkey", "worker-1", "web", "flower"}
    assert address["engine"] == "mock"
    assert httpx.get(f"{address['web']}/readyz").status_code == 200
    assert httpx.get(f"{address['flower']}/healthcheck").status_code == 200
    for url in (address["broker_url"], address["redis_url"]):
        with redis.Redis.from_url(url) as client:
            assert client.ping()
    assert all(psutil.pid_exists(pid) for pid in address["pids"].values())


def test_what_runs_on_has_nothing_of_its_caller_open(stack: Stack) -> None:
    for pid in stack.address["pids"].values():
        targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)]
        assert targets[0] == "/dev/null"
        assert all(target.startswith(str(stack.state_dir / "log")) for target in targets[1:])


def test_a_task_submitted_over_http_completes(stack: Stack) -> None:
    record = stack.outcome(stack.submit("Say something."))
    assert record["status"] == "COMPLETED", record["error"]
    assert record["engine"] == "mock"
    assert record["result"]


def test_everything_else_of_this_user_finds_the_stack(stack: Stack) -> None:
    program = 'from textgen.tasks import generate; print(generate.delay("Hello").id)'
    done = subprocess.run(
        [sys.executable, "-c", program], env=stack.env, cwd=stack.folder, capture_output=True, text=True
    )
    assert stack.outcome(done.stdout.strip())["status"] == "COMPLETED", done.stderr


def test_passwords_and_logs_are_for_their_owner_only(stack: Stack) -> None:
    password = stack.address["redis_url"].split("@")[0].rpartition(":")[2]
    files = [path for path in stack.folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for log in (stack.state_dir / "log").iterdir():
        assert password not in log.read_text(), log
    assert not any(password in " ".join(process.cmdline()) for process in stack.processes())


def test_ps_lists_each_process(stack: Stack) -> None:
    rows = stack.ps()
    assert {name: row["pid"] for name, row in rows.items()} == stack.address["pids"]
    assert all(row["state"] == "running" and row["uptime_s"] > 0 for row in rows.values())
    assert "worker-1" in stack.run("ps").stdout


def test_a_second_up_on_the_same_state_directory_is_refused(stack: Stack) -> None:
    done = stack.run("up", *MOCK, *ANY_PORTS)
    assert done.returncode == 1
    assert f"a stack already runs on {stack.state_dir}" in done.stderr
    assert "textgen down" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("option", "variable", "name"),
    [("--port", "TEXTGEN_PORT", "web"), ("--flower-port", "TEXTGEN_FLOWER_PORT", "flower")],
)
@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_a_taken_port_is_an_error_that_names_port_and_setting(
    stack: Stack, option: str, variable: str, name: str, detach: tuple[str, ...]
) -> None:
    port = stack.address[name].rpartition(":")[2]
    done = stack.run("up", *MOCK, *ANY_PORTS, option, port, *detach, state_dir=stack.folder / "other")
    assert done.returncode != 0
    assert f"port {port}" in done.stderr
    assert option in done.stderr
    assert variable in done.stderr


def test_an_unknown_engine_is_an_error_that_lists_those_there_are(stack: Stack) -> None:
    done = stack.run("up", *ANY_PORTS, "--engine", "nonsense", state_dir=stack.folder / "other")
    assert done.returncode != 0
    assert "mock" in done.stderr


def test_a_worker_that_was_killed_is_replaced(stack: Stack) -> None:
    killed = stack.ps()["worker-1"]["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: stack.ps()["worker-1"]["pid"] not in (killed, None), 10, "another worker runs")
    assert stack.outcome(stack.submit("Hello again."))["status"] == "COMPLETED"


def test_an_embedded_server_that_was_killed_comes_back_with_its_data(stack: Stack) -> None:
    task_id = stack.submit("Before.")
    before = stack.outcome(task_id)
    killed = stack.ps()["valkey"]["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: stack.ps()["valkey"]["pid"] not in (killed, None), 10, "another server runs")
    with redis.Redis.from_url(stack.address["redis_url"]) as client:
        wait_until(lambda: client.get(f"task:{task_id}"), 10, "the record is there again")
    assert stack.outcome(task_id) == before
    wait_until(
        lambda: httpx.get(f"{stack.address['web']}/readyz", timeout=20).is_success, 30, "all is healthy"
    )
    assert stack.outcome(stack.submit("After."))["status"] == "COMPLETED"


def test_a_stack_elsewhere_leaves_the_address_file_to_the_first(
    stack: Stack, make_stack: Callable[..., Stack]
) -> None:
    second = make_stack(XDG_STATE_HOME=stack.env["XDG_STATE_HOME"])
    second.up(*MOCK)
    address_file = Path(stack.env["XDG_STATE_HOME"], "textgen", "address.json")
    assert json.loads(address_file.read_text())["web"] == stack.address["web"]
    assert second.run("down").returncode == 0
    assert httpx.get(f"{stack.address['web']}/readyz").status_code == 200


def test_accepted_tasks_survive_a_restart_of_the_stack(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(TEXTGEN_MOCK_DELAY_S="5", TEXTGEN_SHUTDOWN_GRACE_S="0.5").up(*MOCK)
    task_ids = [stack.submit(f"Prompt {n}.") for n in range(12)]
    assert stack.run("down").returncode == 0
    assert stack.processes() == []
    assert stack.run("ps").returncode == 1
    stack.env["TEXTGEN_MOCK_DELAY_S"] = "0"
    stack.up(*MOCK)
    assert {stack.outcome(task_id)["status"] for task_id in task_ids} == {"COMPLETED"}


def test_a_killed_supervisor_leaves_no_process_and_loses_no_task(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(TEXTGEN_MOCK_DELAY_S="5").up(*MOCK, "--workers", "2")
    assert len(stack.processes()) >= 8  # with the guard and the web app's own
    task_id = stack.submit("Prompt.")
    os.kill(stack.address["pids"]["supervisor"], signal.SIGKILL)
    wait_until(lambda: not stack.processes(), 10, "no process of the stack is left")
    stack.env["TEXTGEN_MOCK_DELAY_S"] = "0"
    assert stack.up(*MOCK).outcome(task_id)["status"] == "COMPLETED"


def test_ctrl_c_stops_everything_in_order(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    command = [TEXTGEN, "up", *MOCK, *ANY_PORTS, "--json", "--state-dir", str(stack.state_dir)]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=stack.env, cwd=stack.folder, **piped) as supervisor:
        address = json.loads(supervisor.stdout.readline())
        assert httpx.get(f"{address['web']}/readyz").status_code == 200
        supervisor.send_signal(signal.SIGINT)
        rest, said = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 0
    assert rest == ""
    assert stack.processes() == []
    order = [said.index(f"process={name}", said.index("stopping")) for name in ("web", "flower", "worker-1")]
    assert order == sorted(order)
    assert said.index("process=valkey", said.index("stopping")) > order[-1]


def test_a_process_that_cannot_start_is_named_with_its_last_words(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(GUNICORN_CMD_ARGS="--nonsense")
    done = stack.run("up", *MOCK, *ANY_PORTS, "--detach")
    assert done.returncode == 1
    assert "web exited with code" in done.stderr
    assert "unrecognized arguments: --nonsense" in done.stderr
    assert stack.processes() == []


def test_given_servers_are_used_in_place_of_the_embedded_one(
    stack_env: Callable[..., Environment], make_stack: Callable[..., Stack]
) -> None:
    given = stack_env("rabbitmq")
    servers = {name: given[name] for name in ("CELERY_BROKER_URL", "REDIS_URL")}
    stack = make_stack(**servers).up(*MOCK)
    assert stack.address["broker_url"] == servers["CELERY_BROKER_URL"]
    assert stack.address["redis_url"] == servers["REDIS_URL"]
    assert "valkey" not in stack.address["pids"]
    assert stack.outcome(stack.submit("Hello."))["status"] == "COMPLETED"
    assert stack.run("down").returncode == 0
    assert stack.processes() == []


def test_without_the_model_up_says_how_to_run(make_stack: Callable[..., Stack]) -> None:
    done = make_stack().run("up", *ANY_PORTS)
    assert done.returncode != 0
    assert "--engine mock" in done.stderr
    assert "textgen fetch-model" in done.stderr


def test_the_local_model_generates_by_default(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(XDG_CACHE_HOME=CACHE_HOME).up()
    assert stack.address["engine"] == "local"
    record = stack.outcome(stack.submit("Name three colours.", max_tokens=24, temperature=0), wait_s=60)
    assert record["status"] == "COMPLETED", record["error"]
    assert record["engine"] == "local"
    assert record["usage"]["completion_tokens"] > 3
    assert len(record["result"].split()) > 2
