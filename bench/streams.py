"""What open streams cost one process of the web app: `python -m bench.streams [--streams 1000]`.

It starts `textgen up` on a folder of its own and, beside it, one web process. Submits and polls are
timed three times: without streams; with that many idle ones, each on a waiting task of its own; and
while as many follow one task, whose text comes at 20 tokens a second.
"""

from __future__ import annotations

import resource
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import click
import httpx
import psutil

from bench.__main__ import stack
from textgen.settings import get_settings


@contextmanager
def web_process() -> Iterator[tuple[str, psutil.Process]]:
    """One process of the web app on the stack of this environment: its address and itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "gunicorn", "--config", "python:textgen.webserver", "--bind", address]
    with tempfile.TemporaryFile() as log:
        parent = subprocess.Popen([*command, "web:app"], stdout=log, stderr=log)
        try:
            until = time.monotonic() + 30
            while not _answers(f"http://{address}/healthz"):
                if time.monotonic() > until:
                    raise click.ClickException("the web process does not answer")
                time.sleep(0.1)
            (child,) = psutil.Process(parent.pid).children()
            yield f"http://{address}", child
        finally:
            parent.terminate()
            parent.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


class Streams:
    """Many streams read by one thread.

    Attributes:
        begun: Streams that have told anything.
        ended: Streams that have told of the end.
        received: Bytes of all.
    """

    def __init__(self, url: str, task_ids: Sequence[str]) -> None:
        self.begun: set[int] = set()
        self.ended: set[int] = set()
        self.received = 0
        self._selector = selectors.DefaultSelector()
        self._over = threading.Event()
        parts = urlsplit(url)
        for task_id in task_ids:
            connection = socket.create_connection((parts.hostname, parts.port or 80))
            connection.sendall(f"GET /v1/tasks/{task_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            self._selector.register(connection, selectors.EVENT_READ, bytearray())
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.2):
                connection: socket.socket = key.fileobj
                found = connection.recv(65_536)
                if not found:
                    self._selector.unregister(connection)
                self.received += len(found)
                tail = key.data + found
                if b"event: " in tail:
                    self.begun.add(key.fd)
                if b"event: end" in tail:
                    self.ended.add(key.fd)
                key.data[:] = tail[-16:]

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()


def timed(http: httpx.Client, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds that each submit, and each poll of what was submitted, took."""
    submits, polls, until = [], [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        path = http.post("/v1/tasks", json={"prompt": "Hello", "max_tokens": 4}).headers["Location"]
        submits.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        http.get(path).raise_for_status()
        polls.append((time.perf_counter() - began) * 1000)
        time.sleep(0.02)
    return submits, polls


def report(name: str, times: tuple[list[float], list[float]], web: psutil.Process) -> None:
    figures = [f"{name:<26}"]
    for what, found in zip(("submit", "poll"), times, strict=True):
        p99 = statistics.quantiles(found, n=100)[-1]
        figures.append(f"{what} {statistics.median(found):5.1f} / {p99:5.1f} ms")
    port = urlsplit(get_settings().store).port
    to_redis = sum(bool(c.raddr) and c.raddr.port == port for c in web.net_connections("tcp"))
    cpu = web.cpu_percent()
    figures.append(
        f"{web.memory_info().rss / 2**20:4.0f} MiB  {web.num_threads()} threads  {to_redis} to Redis"
    )
    click.echo("   ".join((*figures, f"cpu {cpu:.0f} %")))


@click.command()
@click.option("--streams", default=1000, show_default=True, help="How many at once.")
@click.option("--seconds", default=15.0, show_default=True, help="Seconds of each measurement.")
def main(streams: int, seconds: float) -> None:
    """Measure what streams cost, and what they cost others. Latencies are p50 / p99."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with stack("mock", 1), web_process() as (url, web), httpx.Client(base_url=url, timeout=30) as http:
        from textgen.tasks import generate

        timed(http, 1)
        web.cpu_percent()
        report("no stream", timed(http, seconds), web)

        waiting = [generate.apply_async(("Hello",), countdown=3600).id for _ in range(streams)]
        idle = Streams(url, waiting)
        _until(lambda: len(idle.begun) == streams, "all streams have begun")
        web.cpu_percent()
        report(f"{streams} idle streams", timed(http, seconds), web)
        idle.close()

        tokens = int((seconds + 10) * 20)
        plan = {"mock": {"delay_s": 0.05, "tokens": tokens}}
        followed = generate.delay("Hello", max_tokens=tokens, metadata=plan).id
        busy = Streams(url, [followed] * streams)
        _until(lambda: len(busy.begun) == streams, "all streams have begun")
        web.cpu_percent()
        report(f"{streams} streams of one task", timed(http, seconds), web)
        _until(lambda: len(busy.ended) == streams, "all streams have ended")
        busy.close()
        click.echo(f"{len(busy.ended)} told the end, after {busy.received / streams / 1024:.0f} KiB each")


def _until(condition: object, what: str) -> None:
    until = time.monotonic() + 60
    while not condition():
        if time.monotonic() > until:
            raise click.ClickException(f"not within a minute: {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
