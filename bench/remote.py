"""How fast one worker process carries remote calls: 200 tasks of a second each, all at once.

    python -m bench.remote [--tasks 200] [--pools threads,gevent] [--rounds 3] [--pieces 10]

A stand-in for a provider (`bench.provider`) streams each answer in a second from 200 slots. All tasks are
queued before the worker starts, so that it gets them at once, with cold connections. The worker has the
settings shipped for remote engines. Broker and store are those that the environment names, or an embedded
Valkey. The figure is the time from the first task's start to the last one's end.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import psutil

from bench.__main__ import seconds
from textgen.settings import get_settings
from textgen.stack import embedded
from textgen.stack.options import given_connection
from textgen.stack.ports import free_port
from textgen.stack.probes import server_trouble

#: What README.md says a worker for remote engines is to be started with.
SHIPPED = {"TEXTGEN_CONCURRENCY": "200"}


@contextmanager
def process(command: Sequence[str], ready: str, folder: str) -> Iterator[psutil.Process]:
    """A program, as soon as it has written `ready`; ended with the block."""
    log = Path(folder, f"{time.monotonic_ns()}.log")
    with log.open("wb") as file:
        popen = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        until = time.monotonic() + 60
        while ready not in log.read_text(errors="replace"):
            if popen.poll() is not None or time.monotonic() > until:
                raise click.ClickException(f"{command}:\n{log.read_text()[-3000:]}")
            time.sleep(0.01)
        yield psutil.Process(popen.pid)
    finally:
        popen.terminate()
        popen.wait()


@contextmanager
def servers(folder: str) -> Iterator[str]:
    """Broker and store: those of the environment, or a Valkey server of its own. Says which."""
    if given_connection():
        yield get_settings().broker.partition("://")[0]
        return
    server = embedded.prepare(Path(folder, "state"))
    os.environ |= {"CELERY_BROKER_URL": server.url(1), "REDIS_URL": server.url(0)}
    get_settings.cache_clear()
    with process(server.command(), "Ready to accept", folder):
        while server_trouble(server.url(0)):
            time.sleep(0.01)
        yield "embedded Valkey"


def asked(url: str) -> dict[str, int]:
    """What the provider has counted."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        counts: dict[str, int] = json.load(answer)
    return counts


def one_round(pool: str, tasks: int, folder: str) -> tuple[float, float, float]:
    """Seconds from the first start to the last end, seconds of CPU and MiB of the worker."""
    from textgen import client
    from textgen.tasks import generate

    ids = [generate.delay(f"Prompt {n}", max_tokens=64).id for n in range(tasks)]
    command = [sys.executable, "-m", "celery", "-A", "textgen", "worker", "-l", "INFO", "-P", pool]
    command += ["-n", f"bench-{pool}@%h", "--without-mingle", "--without-gossip"]
    with process(command, " ready", folder) as worker:
        before = sum(worker.cpu_times()[:2])
        records = [client.wait(task_id, 120.0).as_dict() for task_id in ids]
        used, memory = sum(worker.cpu_times()[:2]) - before, worker.memory_info().rss / 2**20
    failed = [record["error"] for record in records if record["status"] != "COMPLETED"]
    if failed or any(record["attempt"] != 1 for record in records):
        raise click.ClickException(f"{len(failed)} failed: {failed[:1]}")
    first = min(record["started_at"] for record in records)
    return seconds(first, max(record["finished_at"] for record in records)), used, memory


@click.command()
@click.option("--tasks", default=200, show_default=True)
@click.option("--pools", default="threads,gevent", show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--pieces", default=10, show_default=True, help="Pieces of text in an answer.")
def main(tasks: int, pools: str, rounds: int, pieces: int) -> None:
    """Run remote calls in each pool in turn, and tell how long all of them took together."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="textgen-bench-"))
        os.environ |= SHIPPED | {"XDG_STATE_HOME": folder, "TEXTGEN_ENGINE": "openai", "OPENAI_MODEL": "stub"}
        kind, port = stack.enter_context(servers(folder)), free_port("127.0.0.1", 0)
        os.environ["OPENAI_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
        get_settings.cache_clear()
        provider = [sys.executable, "-m", "bench.provider", str(port), "--slots", str(tasks)]
        stack.enter_context(process([*provider, "--pieces", str(pieces)], "listens", folder))
        found: dict[str, list[tuple[float, float, float]]] = {pool: [] for pool in pools.split(",")}
        for _ in range(rounds):
            for pool, rows in found.items():
                rows.append(one_round(pool, tasks, folder))
                click.echo(f"{pool:8} {rows[-1][0]:6.2f} s   {rows[-1][1]:5.2f} s of CPU")
        counts = asked(f"http://127.0.0.1:{port}/")
    click.echo(f"{tasks} tasks of 1 s in {pieces} pieces, one worker, {kind}; provider: {counts}")
    for pool, rows in found.items():
        took, cpu, memory = zip(*rows, strict=True)
        middle, used = statistics.median(took), statistics.median(cpu)
        click.echo(
            f"{pool:8} best {min(took):.2f} s, median {middle:.2f} s, worst {max(took):.2f} s"
            f"   {used:.2f} s of CPU, {max(memory):.0f} MiB"
        )


if __name__ == "__main__":
    main()
