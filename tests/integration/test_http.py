"""The HTTP API as it is deployed: gunicorn with gevent, RabbitMQ, Redis, a worker with the mock engine."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from textgen.lifecycle import new_task_id


@dataclass(frozen=True)
class Deployment:
    """A web app on servers of its own."""

    web: WebProcess
    http: httpx.Client

    def submit(self, **fields: Any) -> str:
        """Submit a task; returns its path."""
        answer = self.http.post("/v1/tasks", json={"prompt": "Hello", **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.headers["Location"])


@pytest.fixture(scope="module")
def working(
    module_stack_env: Callable[..., Environment],
    module_start_web: Callable[..., WebProcess],
    module_start_worker: Callable[..., WorkerProcess],
) -> Iterator[tuple[Deployment, WorkerProcess]]:
    env = module_stack_env("rabbitmq")
    web, worker = module_start_web(env), module_start_worker(env, "threads", 8).wait_ready()
    with httpx.Client(base_url=web.url, timeout=70) as http:
        yield Deployment(web, http), worker


@pytest.fixture(scope="module")
def served(working: tuple[Deployment, WorkerProcess]) -> Deployment:
    """One with a worker."""
    return working[0]


@pytest.fixture(scope="module")
def idle(
    module_stack_env: Callable[..., Environment], module_start_web: Callable[..., WebProcess]
) -> Iterator[Deployment]:
    """One without a worker: what is submitted waits."""
    web = module_start_web(module_stack_env("rabbitmq"))
    with httpx.Client(base_url=web.url, timeout=70) as http:
        yield Deployment(web, http)


def test_a_submitted_task_completes_and_its_record_is_read(served: Deployment) -> None:
    path = served.submit(metadata={"order": [17, None]}, temperature=0.5)
    ended = served.http.get(f"{path}?wait_s=30")

    assert ended.json()["status"] == "COMPLETED"
    assert ended.json()["result"]
    assert ended.json()["engine"] == "mock"
    assert ended.json()["metadata"] == {"order": [17, None]}
    assert "Retry-After" not in ended.headers
    assert served.http.get(path).json() == ended.json()


def test_it_is_ready_once_a_worker_is(served: Deployment) -> None:
    wait_until(lambda: served.http.get("/readyz").status_code == 200, 10, "/readyz answers 200")


def test_what_has_ended_cannot_be_cancelled(served: Deployment) -> None:
    path = served.submit()
    served.http.get(f"{path}?wait_s=30")
    late = served.http.post(f"{path}/cancel")

    assert (late.status_code, late.json()["type"]) == (409, "urn:textgen:problem:task-finished")


def test_prompts_and_results_stand_in_no_log_line(working: tuple[Deployment, WorkerProcess]) -> None:
    served, worker = working
    canary = "canary-5d1e"
    path = served.submit(prompt=f"{canary}\nforged line", metadata={"key": canary})
    ended = served.http.get(f"{path}?wait_s=30").json()
    served.http.post("/v1/tasks", json={"prompt": canary, canary: canary})
    served.http.get(f"/{canary}", headers={"X-Request-Id": "seen-in-the-log"})

    wait_until(lambda: "seen-in-the-log" in served.web.log(), 5, "the last request is logged")
    assert ended["task_id"] in served.web.log()
    for log in (served.web.log(), worker.log()):
        assert canary not in log
        assert ended["result"] not in log


def test_without_a_worker_a_task_is_kept_and_readiness_says_so(idle: Deployment) -> None:
    read = idle.http.get(idle.submit())
    ready = idle.http.get("/readyz")

    assert (read.status_code, read.json()["status"]) == (200, "PENDING")
    assert read.headers["Retry-After"] == "1"
    assert (ready.status_code, ready.headers["Content-Type"]) == (503, "application/problem+json")
    assert [name for name, reason in ready.json()["parts"].items() if reason] == ["worker"]


def test_a_waiting_read_answers_when_time_is_up(idle: Deployment) -> None:
    path = idle.submit()
    began = time.monotonic()
    answer = idle.http.get(f"{path}?wait_s=0.5")

    assert 0.4 < time.monotonic() - began < 1.5
    assert (answer.status_code, answer.json()["status"]) == (200, "PENDING")
    assert answer.headers["Retry-After"] == "1"


def test_many_waiting_reads_hold_up_nothing_and_end_with_the_task(idle: Deployment) -> None:
    path = idle.submit()

    def wait(_: int) -> tuple[str, float]:
        answer = httpx.get(f"{idle.web.url}{path}?wait_s=60", timeout=70)
        return answer.json()["status"], time.monotonic()

    with ThreadPoolExecutor(40) as threads:
        waiting = [threads.submit(wait, number) for number in range(40)]
        wait_until(lambda: established(idle.web) >= 40, 10, "40 readers wait")
        began = time.monotonic()
        assert idle.http.get("/healthz").is_success
        idle.submit()
        cancelled = time.monotonic()
        idle.http.post(f"{path}/cancel")
        ended = [future.result() for future in waiting]

    assert cancelled - began < 2
    assert {status for status, _ in ended} == {"CANCELLED"}
    assert max(at for _, at in ended) - cancelled < 3


def established(web: WebProcess) -> int:
    """Connections that the web app's worker processes hold on its port."""
    port = httpx.URL(web.url).port
    processes = psutil.Process(web.pid).children(recursive=True)
    return sum(
        connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
        for process in processes
        for connection in process.net_connections("tcp")
    )


def test_cancelling_again_changes_nothing(idle: Deployment) -> None:
    path = idle.submit()
    first, again = (idle.http.post(f"{path}/cancel") for _ in range(2))

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert first.json()["status"] == "CANCELLED"


def test_an_unknown_id_is_404(idle: Deployment) -> None:
    path = f"/v1/tasks/{new_task_id()}"
    for answer in (
        idle.http.get(path),
        idle.http.get(f"{path}?wait_s=5"),
        idle.http.post(f"{path}/cancel"),
    ):
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_a_body_that_breaks_off_inside_its_chunks_is_400(idle: Deployment) -> None:
    head = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = send_raw(idle.web, head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")

    assert answer.startswith("HTTP/1.1 400")
    assert "application/problem+json" in answer


def send_raw(web: WebProcess, request: str) -> str:
    """What comes first on a connection of its own."""
    url = httpx.URL(web.url)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(request.encode())
        return connection.recv(65_536).decode()
