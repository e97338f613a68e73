"""How many tasks per second the embedded stack carries, end to end: `make bench ARGS="--tasks 2000"`.

It starts `textgen up` on a folder of its own, submits with `.delay()` from this process, waits until
all are done, and takes the times out of the records.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click

from textgen.settings import get_settings
from textgen.stack import detached
from textgen.stack.options import Options


@contextmanager
def stack(engine: str, workers: int) -> Iterator[None]:
    """A stack of its own, which this process uses while the block runs."""
    with tempfile.TemporaryDirectory(prefix="textgen-bench-") as folder:
        os.environ["XDG_STATE_HOME"] = folder
        state_dir = Path(folder, "stack")
        options = Options.over_settings(state_dir, engine=engine, workers=workers, port=0, flower_port=0)
        address = detached.start(options)
        os.environ |= {"CELERY_BROKER_URL": address["broker_url"], "REDIS_URL": address["redis_url"]}
        get_settings.cache_clear()
        try:
            yield
        finally:
            detached.stop(state_dir)


def seconds(start: str, end: str) -> float:
    """Seconds between two times of a record."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


@click.command()
@click.option("--tasks", default=500, show_default=True, help="Tasks to submit.")
@click.option("--engine", default="mock", show_default=True)
@click.option("--workers", default=1, show_default=True, help="Worker processes.")
def main(tasks: int, engine: str, workers: int) -> None:
    """Measure submits and completions per second, and the latency of a task under that load."""
    with stack(engine, workers):
        from textgen import client
        from textgen.tasks import generate

        started = time.perf_counter()
        ids = [generate.delay(f"Prompt {n}", max_tokens=16).id for n in range(tasks)]
        submitted_s = time.perf_counter() - started
        records = [client.wait(task_id, 600.0).as_dict() for task_id in ids]
        finished_s = time.perf_counter() - started
    states = sorted({record["status"] for record in records})
    latencies_s = [seconds(record["created_at"], record["finished_at"]) for record in records]
    p95_s = statistics.quantiles(latencies_s, n=20)[-1]
    click.echo(f"{tasks} tasks on engine {engine}, {workers} worker(s): {', '.join(states)}")
    click.echo(f"submitted  {tasks / submitted_s:8.1f} tasks/s")
    click.echo(f"completed  {tasks / finished_s:8.1f} tasks/s")
    click.echo(f"latency    {statistics.median(latencies_s):8.3f} s median, {p95_s:.3f} s p95")


if __name__ == "__main__":
    main()
