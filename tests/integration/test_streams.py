"""Streams over HTTP as they are deployed: gunicorn, RabbitMQ, Redis, a worker with the mock engine."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from itertools import islice
from typing import Any

import httpx
import psutil
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from textgen.lifecycle import new_task_id
from textgen.responses import Told, events_of
from textgen.store import open_store
from textgen.store.subscriber import subscriber

SSE = {"Accept": "text/event-stream"}
#: What makes the mock engine take a second.
STEADY = {"mock": {"delay_s": 0.05, "tokens": 20}}
#: What makes it take a minute.
SLOW = {"mock": {"delay_s": 0.1, "tokens": 600}}


@pytest.fixture(scope="module")
def stack(module_stack_env: Callable[..., Environment]) -> Environment:
    return module_stack_env("rabbitmq")


@pytest.fixture(scope="module")
def web(
    stack: Environment,
    module_start_web: Callable[..., WebProcess],
    module_start_worker: Callable[..., WorkerProcess],
) -> WebProcess:
    module_start_worker(stack, "threads", 8).wait_ready()
    return module_start_web(stack)


@pytest.fixture(scope="module")
def http(web: WebProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url, timeout=60) as made:
        yield made


def submit(http: httpx.Client, **fields: Any) -> str:
    answer = http.post("/v1/tasks", json={"prompt": "Hello", **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["Location"])


def events(answer: httpx.Response) -> list[Told]:
    """The events of a stream that is read to its end."""
    return list(events_of(answer))


def text_of(found: list[Told]) -> str:
    """What a client that heeds `reset` is left with."""
    text = ""
    for event in found:
        if event.kind == "reset":
            text = ""
        elif event.kind == "chunk":
            text += event.data["text"]
    return text


def follow(http: httpx.Client, path: str, after: str | None = None, **query: Any) -> list[Told]:
    headers = {"Last-Event-ID": after} if after else {}
    with http.stream("GET", f"{path}/events", headers=headers, params=query) as answer:
        assert answer.status_code == 200, answer.read()
        return events(answer)


def test_a_stream_tells_states_text_and_the_record(http: httpx.Client) -> None:
    path = submit(http, metadata=STEADY)
    with http.stream("GET", f"{path}/events") as answer:
        found = events(answer)

    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert "no-store" in answer.headers["Cache-Control"]
    record = http.get(path).json()
    states = [event.data for event in found if event.kind == "state"]
    assert [(state["status"], state["attempt"]) for state in states] == [
        ("PENDING", 0),
        ("PROCESSING", 1),
        ("COMPLETED", 1),
    ]
    assert all(state["at"] for state in states)
    assert found[-1].data == record
    assert [event.kind for event in found].count("end") == 1
    assert text_of(found) == record["result"]
    assert len({event.id for event in found}) == len(found)


def test_a_finished_task_is_streamed_from_behind_every_event(http: httpx.Client) -> None:
    path = submit(http, metadata=STEADY)
    whole = follow(http, path)

    for count, event in enumerate(whole[:-1], 1):
        assert follow(http, path, after=event.id) == whole[count:]
    by_query = f"{path}/events?after={whole[3].id}"
    with http.stream("GET", by_query) as answer:
        assert events(answer) == whole[4:]
    with http.stream("GET", by_query, headers={"Last-Event-ID": whole[5].id}) as answer:
        assert events(answer) == whole[6:]


def test_behind_the_end_there_is_nothing_to_come_back_for(http: httpx.Client) -> None:
    path = submit(http)
    end = follow(http, path)[-1]

    answer = http.get(f"{path}/events", headers={"Last-Event-ID": end.id})

    assert (answer.status_code, answer.content) == (204, b"")


def test_a_position_that_the_log_does_not_reach_begins_anew_and_says_so(http: httpx.Client) -> None:
    path = submit(http, metadata=STEADY)
    whole = follow(http, path)

    found = follow(http, path, after="99999-9")

    assert (found[0].kind, found[0].data["reason"]) == ("reset", "log_lost")
    assert found[1:] == whole
    assert follow(http, path, after=found[0].id)[-len(whole) :] == whole


@pytest.mark.parametrize("given", ["x", "1", "1-", "-1", "1-1-1", "1-1 2", "9" * 40 + "-1", "$", "*"])
def test_what_is_no_position_is_refused_and_named(http: httpx.Client, given: str) -> None:
    path = submit(http)
    for where, answer in (
        ("after", http.get(f"{path}/events", params={"after": given})),
        ("Last-Event-ID", http.get(f"{path}/events", headers={"Last-Event-ID": given})),
    ):
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == [where]


def test_an_unknown_task_has_no_stream(http: httpx.Client) -> None:
    for query in ({}, {"stream": "text"}, {"after": "end"}):
        answer = http.get(f"/v1/tasks/{new_task_id()}/events", params=query)
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_head_tells_of_a_stream_without_following_it(http: httpx.Client) -> None:
    path = submit(http, metadata=SLOW, max_tokens=1000)
    answer = http.head(f"{path}/events", timeout=5)

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")
    http.post(f"{path}/cancel")


def test_plain_text_comes_piece_by_piece(http: httpx.Client) -> None:
    path = submit(http, metadata=STEADY)
    with http.stream("GET", f"{path}/events", params={"stream": "text"}) as answer:
        pieces = list(answer.iter_text())

    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert len(pieces) > 3
    assert "".join(pieces) == http.get(path).json()["result"]


def test_plain_text_says_when_it_is_void_and_when_it_failed(http: httpx.Client) -> None:
    fails = {"mock": {"failure": "transient", "times": 1, "after": 3, "retry_after_s": 0}}
    path = submit(http, metadata=fails)
    with http.stream("GET", f"{path}/events", params={"stream": "text"}) as answer:
        text = answer.read().decode()
    assert "void" in text
    assert text.endswith(http.get(path).json()["result"])

    path = submit(http, metadata={"mock": {"failure": "permanent"}})
    with http.stream("GET", f"{path}/events", params={"stream": "text"}) as answer:
        assert "[FAILED: " in answer.read().decode()


def test_a_submit_that_accepts_events_is_answered_by_them(http: httpx.Client) -> None:
    for headers, query in ((SSE, {}), ({}, {"stream": "sse"})):
        body = {"prompt": "Hello", "metadata": STEADY}
        with http.stream("POST", "/v1/tasks", json=body, headers=headers, params=query) as answer:
            found = events(answer)
        path = answer.headers["Location"]
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert found == follow(http, path)
        assert found[-1].data == http.get(path).json()


def test_a_submit_can_be_answered_by_the_text(http: httpx.Client) -> None:
    answer = http.post("/v1/tasks?stream=text", json={"prompt": "Hello"})
    assert answer.text == http.get(answer.headers["Location"]).json()["result"]


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html", "text/event-stream;q=0.1, */*"])
def test_others_are_answered_by_the_record(http: httpx.Client, accept: str) -> None:
    answer = http.post("/v1/tasks", json={"prompt": "Hello"}, headers={"Accept": accept})
    assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")


def test_a_refused_submit_is_a_problem_also_for_who_wants_events(http: httpx.Client) -> None:
    answer = http.post("/v1/tasks", json={}, headers=SSE)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")


def test_a_submit_can_wait_for_the_end(http: httpx.Client) -> None:
    body = {"prompt": "Hello", "metadata": STEADY}
    answer = http.post("/v1/tasks", json=body, headers={"Prefer": "respond-async, wait=30"})

    assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETED")
    assert answer.headers["Preference-Applied"] == "wait=30"
    assert answer.json() == http.get(answer.headers["Location"]).json()


def test_a_submit_that_waits_is_answered_when_time_is_up(http: httpx.Client) -> None:
    body = {"prompt": "Hello", "metadata": SLOW, "max_tokens": 1000}
    began = time.monotonic()
    answer = http.post("/v1/tasks", json=body, headers={"Prefer": "wait=1"})

    assert 0.9 < time.monotonic() - began < 3
    assert (answer.status_code, answer.json()["status"]) == (202, "PROCESSING")
    assert answer.headers["Preference-Applied"] == "wait=1"
    http.post(f"{answer.headers['Location']}/cancel")


def test_a_wait_is_answered_the_moment_the_task_ends(http: httpx.Client) -> None:
    late_s = []
    for _ in range(5):
        path = submit(http, metadata=STEADY)
        record = http.get(path, params={"wait_s": 30}).json()
        late_s.append(time.time() - datetime.fromisoformat(record["finished_at"]).timestamp())
    assert sorted(late_s)[2] < 0.15


class Interrupted:
    """A client whose connection breaks after every `count` events, and which always resumes."""

    def __init__(self, url: str, path: str, count: int) -> None:
        self.url, self.path, self.count = url, path, count
        self.found: list[Told] = []

    def run(self) -> None:
        while not self.found or self.found[-1].kind != "end":
            with httpx.Client(base_url=self.url, timeout=60) as http:
                headers = {"Last-Event-ID": self.found[-1].id} if self.found else {}
                with http.stream("GET", f"{self.path}/events", headers=headers) as answer:
                    told = events_of(answer)
                    self.found += islice(told, self.count)


def test_a_stream_broken_at_every_event_and_a_killed_worker_yields_the_text_of_the_record(
    stack_env: Callable[..., Environment],
    start_web: Callable[..., WebProcess],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    stack = stack_env("rabbitmq", TEXTGEN_LEASE_S=2)
    webs = [start_web(stack), start_web(stack)]
    doomed = start_worker(stack, "threads", 2).wait_ready()
    kills_its_worker = {"failure": "dies_midway", "after": 15, "tokens": 30, "delay_s": 0.1}
    answer = httpx.post(
        f"{webs[0].url}/v1/tasks",
        json={"prompt": "Hello", "metadata": {"mock": kills_its_worker}},
    )
    path = answer.headers["Location"]
    clients = [Interrupted(webs[n % 2].url, path, n) for n in (1, 2, 3, 5, 8, 1000)]
    with ThreadPoolExecutor(len(clients)) as threads:
        runs = [threads.submit(client.run) for client in clients]
        assert doomed.wait(30) == -signal.SIGKILL
        start_worker(stack, "threads", 2).wait_ready()
        for run in runs:
            run.result(timeout=60)

    record = httpx.get(f"{webs[1].url}{path}").json()
    assert (record["status"], record["attempt"]) == ("COMPLETED", 2)
    for client in clients:
        assert [event.kind for event in client.found].count("reset") == 1
        assert text_of(client.found) == record["result"]
        assert client.found == clients[-1].found
        assert client.found[-1].data == record


@pytest.fixture(scope="module")
def finished(http: httpx.Client) -> tuple[str, list[Told]]:
    """A task that took three attempts: its path and its events."""
    fails = {"mock": {"failure": "transient", "times": 2, "after": 5, "retry_after_s": 0}}
    path = submit(http, metadata=fails)
    return path, follow(http, path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_whatever_breaks_off_where_the_text_is_that_of_the_record(
    http: httpx.Client, finished: tuple[str, list[Told]], counts: list[int]
) -> None:
    path, whole = finished
    found: list[Told] = []
    for count in [*counts, len(whole)]:
        if not found or found[-1].kind != "end":
            found += follow(http, path, after=found[-1].id if found else None)[:count]

    assert found == whole
    assert text_of(found) == whole[-1].data["result"]
    assert [event.kind for event in whole].count("reset") == 2


def test_a_stream_goes_on_when_its_reader_has_lost_redis(stack: Environment, http: httpx.Client) -> None:
    path = submit(http, metadata=SLOW, max_tokens=1000)
    with http.stream("GET", f"{path}/events") as answer:
        told = events_of(answer)
        while next(told).kind != "chunk":
            pass
        with redis.Redis.from_url(stack["REDIS_URL"]) as server:
            assert server.client_kill_filter(_type="pubsub") > 0
        began = time.monotonic()
        while time.monotonic() - began < 2:
            assert next(told).kind == "chunk"
        assert time.monotonic() - began < 5
    http.post(f"{path}/cancel")


def test_who_listens_looks_anew_when_announcements_may_have_been_missed(live: Environment) -> None:
    store = open_store()
    with subscriber(store).listening(new_task_id()) as listener:
        assert listener.confirmed.is_set()
        assert not listener.wait(0.1)
        store.client.client_kill_filter(_type="pubsub")
        assert listener.wait(5)


def established(web: WebProcess) -> list[Any]:
    """The connections of the web app's processes."""
    return [
        connection
        for process in psutil.Process(web.pid).children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
    ]


def connections(web: WebProcess) -> int:
    """Connections from clients that the web app's processes hold."""
    port = httpx.URL(web.url).port
    return sum(connection.laddr.port == port for connection in established(web))


def test_many_streams_that_begin_at_once_leave_connections_to_redis_for_others(
    stack: Environment, start_web: Callable[..., WebProcess], http: httpx.Client
) -> None:
    web, path = start_web(stack), submit(http, metadata={"mock": {"failure": "hangs"}})
    url = httpx.URL(web.url)
    with ExitStack() as opened:
        opened.callback(http.post, f"{path}/cancel")
        streams = [
            opened.enter_context(socket.create_connection((url.host, url.port), timeout=30))
            for _ in range(200)
        ]
        for stream in streams:
            stream.sendall(f"GET {path}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert {stream.recv(12) for stream in streams} == {b"HTTP/1.1 200"}
        port = httpx.URL(stack["REDIS_URL"]).port
        to_redis = sum(connection.raddr.port == port for connection in established(web))
        # a quarter of TEXTGEN_REDIS_MAX_CONNECTIONS reads, one subscribes, and a few serve what else there is
        assert to_redis < 64 / 4 + 6


@pytest.mark.parametrize("form", ["sse", "text"])
def test_a_client_that_goes_away_is_noticed_while_nothing_is_sent(
    stack: Environment, web: WebProcess, http: httpx.Client, form: str
) -> None:
    kept = submit(http, metadata={"mock": {"failure": "hangs"}})
    doomed = submit(http, metadata={"mock": {"failure": "hangs"}})
    before = connections(web)
    with ExitStack() as streams:
        for path, cancel in ((kept, "false"), (doomed, "true")):
            query = {"stream": form, "cancel_on_disconnect": cancel}
            streams.enter_context(httpx.stream("GET", f"{web.url}{path}/events", params=query))
        wait_until(lambda: connections(web) == before + 2, 5, "both are connected")
        wait_until(lambda: http.get(doomed).json()["status"] == "PROCESSING", 10, "it runs")
    wait_until(lambda: http.get(doomed).json()["status"] == "CANCELLED", 5, "it is cancelled")
    wait_until(lambda: connections(web) <= before, 5, "nothing is held for clients that have gone")
    assert http.get(kept).json()["status"] == "PROCESSING"
    http.post(f"{kept}/cancel")


def test_a_submit_that_streams_is_cancelled_with_its_client(web: WebProcess, http: httpx.Client) -> None:
    body = {"prompt": "Hello", "metadata": SLOW, "max_tokens": 1000}
    with httpx.stream(
        "POST", f"{web.url}/v1/tasks?cancel_on_disconnect=true", json=body, headers=SSE, timeout=30
    ) as answer:
        path = answer.headers["Location"]
    wait_until(lambda: http.get(path).json()["status"] == "CANCELLED", 5, "it is cancelled")


def test_a_server_that_stops_ends_its_streams_and_cancels_nothing(
    stack: Environment, http: httpx.Client, start_web: Callable[..., WebProcess]
) -> None:
    path = submit(http, metadata=SLOW, max_tokens=1000)
    stopping = start_web(stack)
    query = {"cancel_on_disconnect": "true"}
    with httpx.stream("GET", f"{stopping.url}{path}/events", params=query, timeout=30) as answer:
        told = events_of(answer)
        found = [next(told)]
        began = time.monotonic()
        stopping.signal(signal.SIGTERM)
        found += told
        assert time.monotonic() - began < 5
    assert stopping.wait(10) == 0
    assert "end" not in {event.kind for event in found}
    assert http.get(path).json()["status"] == "PROCESSING"

    http.post(f"{path}/cancel")
    rest = follow(http, path, after=found[-1].id)
    assert found + rest == follow(http, path)


def test_a_client_that_never_reads_holds_up_nobody_and_is_given_up(
    stack: Environment, start_web: Callable[..., WebProcess], http: httpx.Client
) -> None:
    web = start_web(stack | {"TEXTGEN_MAX_PROMPT_CHARS": "1000000", "TEXTGEN_MAX_BODY_BYTES": "8000000"})
    # Its record is more than the buffers between hold.
    body = {"prompt": "é" * 1_000_000, "metadata": {"mock": {"tokens": 1}}}
    path = httpx.post(f"{web.url}/v1/tasks", json=body, timeout=30).headers["Location"]
    wait_until(lambda: httpx.get(f"{web.url}{path}").json()["finished_at"], 20, "it has ended")
    url = httpx.URL(web.url)
    with socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect((url.host, url.port))
        idle.sendall(f"GET {path}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: connections(web) == 1, 5, "it is connected")
        slowest = 0.0
        until = time.monotonic() + 30
        while connections(web) and time.monotonic() < until:
            began = time.monotonic()
            assert httpx.get(f"{web.url}/healthz").is_success
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.25)
    assert connections(web) == 0
    assert slowest < 1
