"""The monitoring script of the README, as somebody runs it who knows nothing of textgen but Redis."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WorkerProcess

README = Path(__file__).parents[2] / "README.md"
#: Seconds that anything may take here at the most.
PATIENCE_S = 60
#: Answers how many records there are, and the keys of those that never expire; at one moment.
LOOK = """
local records, lasting = redis.call('KEYS', 'task:*'), {}
for _, key in ipairs(records) do
    if redis.call('PTTL', key) <= 0 then table.insert(lasting, key) end
end
return {#records, lasting}
"""
LINE = re.compile(r"([0-9a-f]{8})\.\.\. (PENDING|PROCESSING|COMPLETED|FAILED|CANCELLED)")


@dataclass
class Looks:
    """What a look at all records, again and again, has found."""

    #: Looks at which there were records.
    count: int = 0
    lasting: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Load:
    """What was seen while tasks came and went."""

    tasks: dict[str, str]
    #: What each run of the script printed, by whether tasks ran then: task → status.
    during: list[dict[str, str]]
    after: dict[str, str]
    looks: Looks


def script(redis_url: str) -> str:
    """The script with its connection changed, and only that."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if 'keys("task:*")' in block)
    changed, count = re.subn(
        r"redis\.Redis\([^)]*\)", f"redis.Redis.from_url({redis_url!r}, decode_responses=True)", found
    )
    assert count == 1
    return changed


def run_script(redis_url: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", script(redis_url)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    lines = [LINE.fullmatch(line) for line in done.stdout.splitlines()]
    assert all(lines), done.stdout
    return {line[1]: line[2] for line in lines if line}


@contextmanager
def looking(store: redis.Redis) -> Iterator[Looks]:
    """Look at all records without a pause."""
    looks, look, over = Looks(), store.register_script(LOOK), threading.Event()

    def watch() -> None:
        while not over.is_set():
            records, lasting = look()
            looks.count += records > 0
            looks.lasting.update(lasting)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
        thread.join()


def submit(**behaviour: Any) -> str:
    from textgen.tasks import generate

    return str(generate.delay("Hello", engine="mock", max_tokens=1000, metadata={"mock": behaviour}).id)


def submit_all() -> dict[str, str]:
    """Submit tasks of every ending; task id → its end."""
    tasks = {submit(delay_s=0.02, tokens=5): "COMPLETED" for _ in range(30)}
    tasks |= {submit(failure=failure): "FAILED" for failure in ("permanent", "raises") for _ in range(5)}
    tasks |= {submit(failure="transient", times=1): "COMPLETED" for _ in range(5)}
    tasks |= {submit(delay_s=0.1, tokens=900): "CANCELLED" for _ in range(5)}
    tasks |= {submit(): "COMPLETED" for _ in range(55)}
    return tasks


def go_through(tasks: dict[str, str], worker: WorkerProcess, redis_url: str) -> list[dict[str, str]]:
    """Bring all tasks to their ends, one worker dying meanwhile; the script runs all the while."""
    from textgen import client

    cancelled = [task_id for task_id, end in tasks.items() if end == "CANCELLED"]
    wait_until(lambda: client.get(cancelled[0]).status == "PROCESSING", PATIENCE_S, "a long task runs")
    printed = [run_script(redis_url)]
    worker.kill()
    worker.start()
    for task_id in cancelled:
        client.cancel(task_id)

    def over() -> bool:
        printed.append(run_script(redis_url))
        return all(status not in ("PENDING", "PROCESSING") for status in printed[-1].values())

    wait_until(over, PATIENCE_S, "the script says that all tasks have ended")
    return printed


def go_through_flush(store: redis.Redis) -> dict[str, str]:
    """Have Redis lose everything while tasks are queued and running; task id → its end."""
    from textgen import client

    tasks = {submit(delay_s=0.05, tokens=10): "COMPLETED" for _ in range(12)}
    store.flushdb()
    for task_id in tasks:
        wait_until(lambda: store.exists(f"task:{task_id}"), PATIENCE_S, "it is known again")  # noqa: B023
        client.wait(task_id, PATIENCE_S)
    return tasks


@pytest.fixture(scope="module", params=["rabbitmq", "valkey"])
def load(
    request: pytest.FixtureRequest,
    module_stack_env: Callable[..., Environment],
    module_start_worker: Callable[..., WorkerProcess],
) -> Load:
    env = module_stack_env(request.param, TEXTGEN_LEASE_S=2)
    url, store = env["REDIS_URL"], redis.Redis.from_url(env["REDIS_URL"], decode_responses=True)
    assert run_script(url) == {}, "there is nothing to print yet"
    with application(env), looking(store) as looks:
        tasks = submit_all()
        waiting = run_script(url)
        worker = module_start_worker(env, "threads", 8)
        during = [waiting, *go_through(tasks, worker, url)]
        after = run_script(url)
        worker.wait_ready()
        flushed = go_through_flush(store)
        assert run_script(url) == {task_id[:8]: end for task_id, end in flushed.items()}
    store.close()
    return Load(tasks, during, after, looks)


def test_it_runs_during_load_and_shows_each_state(load: Load) -> None:
    assert load.during[0] == {task_id[:8]: "PENDING" for task_id in load.tasks}
    assert all(printed.keys() == load.during[0].keys() for printed in load.during)
    seen = Counter(status for printed in load.during for status in printed.values())
    assert seen.keys() == {"PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"}


def test_it_runs_after_load_and_shows_how_all_ended(load: Load) -> None:
    assert load.after == {task_id[:8]: end for task_id, end in load.tasks.items()}


def test_no_record_was_ever_without_an_expiry(load: Load) -> None:
    assert load.looks.count > 100
    assert load.looks.lasting == set()
