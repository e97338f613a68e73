"""What the web server answers by itself: requests that are slow, cut short, or no HTTP."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WebProcess

HEAD = "POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def web(
    module_stack_env: Callable[..., Environment], module_start_web: Callable[..., WebProcess]
) -> WebProcess:
    return module_start_web(module_stack_env("rabbitmq"))


class Connection:
    """A connection of its own to the web server, for requests that no client would make."""

    def __init__(self, web: WebProcess) -> None:
        url = httpx.URL(web.url)
        self.socket = socket.create_connection((url.host, url.port or 80), timeout=20)

    def ask(self, request: str | bytes) -> None:
        self.socket.sendall(request.encode() if isinstance(request, str) else request)

    def answer(self) -> str:
        """All that comes until the server ends the connection."""
        parts = []
        while part := self.socket.recv(65_536):
            parts.append(part)
        self.socket.close()
        return b"".join(parts).decode()


def assert_problem(answer: str, status: int) -> None:
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert "Content-Type: application/problem+json" in head
    assert json.loads(body)["status"] == status
    assert "<" not in body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (f"{HEAD}Content-Length: -5\r\n\r\n", 400),
        (f"{HEAD}Content-Length: 5, 6\r\n\r\n", 400),
        (f"{HEAD}Content-Length: five\r\n\r\n", 400),
        (f"{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (f"{HEAD}Transfer-Encoding: secret\r\n\r\n", 501),
        (f"GET /{'a' * 10_000} HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (f"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {'a' * 200_000}\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n" + "X-Many: a\r\n" * 200 + "\r\n", 431),
        (f"{HEAD}Expect: secret\r\n\r\n", 417),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nsecret header\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n secret\r\n\r\n", 400),
        ("<secret> / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET / SECRET/1.1\r\n\r\n", 400),
        ("GET / HTTP/3.7\r\n\r\n", 400),
        ("secret\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_a_problem_without_an_echo(
    web: WebProcess, request_: str | bytes, status: int
) -> None:
    connection = Connection(web)
    connection.ask(request_)
    answer = connection.answer()

    assert_problem(answer, status)
    assert "secret" not in answer.lower()
    assert "secret" not in web.log().lower()


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO", "REMOTE_USER", "X-Forwarded-Prefix"])
def test_no_header_leads_to_another_path(web: WebProcess, name: str) -> None:
    connection = Connection(web)
    connection.ask(
        f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{name}: /secret\r\n\r\n"
    )

    assert connection.answer().startswith("HTTP/1.1 200 ")
    assert "secret" not in web.log()


def test_an_unforeseen_answer_to_a_refusal_leaves_the_server_serving(web: WebProcess) -> None:
    for _ in range(20):
        connection = Connection(web)
        connection.ask("nonsense\r\n\r\n")
        connection.socket.close()
    assert httpx.get(f"{web.url}/healthz").is_success


def test_a_body_that_does_not_come_is_408_in_time_and_holds_up_nobody(web: WebProcess) -> None:
    def wait(drip: bool) -> tuple[str, float]:
        connection, began = Connection(web), time.monotonic()
        connection.ask(f"{HEAD}Content-Length: 100\r\n\r\n{{")
        while drip and not select.select([connection.socket], [], [], 0.5)[0]:
            connection.ask(" ")
        try:
            answer = connection.answer()
        except ConnectionResetError:  # what still dripped after the answer can do that
            connection.socket.close()
            answer = ""
        return answer, time.monotonic() - began

    with ThreadPoolExecutor(60) as threads:
        waiting = [threads.submit(wait, drip=number % 2 == 0) for number in range(60)]
        while not all(future.done() for future in waiting):
            assert httpx.get(f"{web.url}/healthz", timeout=5).is_success
            time.sleep(0.5)
    for answer, took_s in (future.result() for future in waiting):
        if answer:
            assert_problem(answer, 408)
        assert took_s < 15
    # those that just wait are told
    assert all(future.result()[0] for future in waiting[1::2])


def test_a_body_that_nobody_wants_is_not_waited_for(web: WebProcess) -> None:
    connection, began = Connection(web), time.monotonic()
    head = "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100\r\n\r\n"
    connection.ask(f"{head}{{")

    assert connection.answer().startswith("HTTP/1.1 404 ")
    assert time.monotonic() - began < 5


def test_headers_that_do_not_come_end_the_connection(web: WebProcess) -> None:
    connection, began = Connection(web), time.monotonic()
    connection.ask("GET /healthz HTTP/1.1\r\nHost:")

    assert connection.answer() == ""
    assert time.monotonic() - began < 15


def test_who_asked_while_the_process_stood_still_is_answered(web: WebProcess) -> None:
    (child,) = psutil.Process(web.pid).children()
    connection = Connection(web)
    wait_until(lambda: _holds(child, connection), 10, "the connection is accepted")
    child.suspend()
    try:
        connection.ask("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        time.sleep(3)  # part of the fault
    finally:
        child.resume()
    assert connection.answer().startswith("HTTP/1.1 200 ")


def _holds(process: psutil.Process, connection: Connection) -> bool:
    ours = connection.socket.getsockname()
    return any(tuple(one.raddr) == ours for one in process.net_connections("tcp"))


def test_a_body_cut_short_is_400_even_where_what_came_is_json(web: WebProcess) -> None:
    connection = Connection(web)
    connection.ask(f'{HEAD}Content-Length: 100\r\n\r\n{{"prompt": "x"}}')
    connection.socket.shutdown(socket.SHUT_WR)

    assert_problem(connection.answer(), 400)


def test_a_slow_body_that_comes_in_time_is_taken(web: WebProcess) -> None:
    body = '{"prompt": "Hello"}'
    connection = Connection(web)
    connection.ask(f"{HEAD}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n")
    for letter in body:
        connection.ask(letter)
        time.sleep(0.05)
    assert connection.answer().startswith("HTTP/1.1 202 ")


def test_it_may_have_many_files_open(web: WebProcess) -> None:
    (child,) = psutil.Process(web.pid).children()
    soft, hard = child.rlimit(psutil.RLIMIT_NOFILE)
    assert soft >= min(2256, hard)
