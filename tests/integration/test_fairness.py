"""One owner's flood does not starve another: what is over an owner's share waits, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WorkerProcess
from textgen.caller import Caller
from textgen.lifecycle import Status
from textgen.store import keys

#: A task of this takes 0.2 s.
TASK = {"mock": {"tokens": 2, "delay_s": 0.1}}
#: Tasks of one owner in a lane at once, and how many run at once.
SHARE, SLOTS = 4, 2


@pytest.fixture(params=["rabbitmq", "valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_behind_a_thousand_tasks_of_one_owner_anothers_first_begins_after_a_few_of_them(
    kind: str, stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env = stack_env(kind, TEXTGEN_OWNER_SHARE=SHARE)
    with application(env):
        from textgen import client
        from textgen.requests import parse_request

        request = parse_request({"prompt": "hello", "metadata": TASK})
        flood = [client.submit(request, caller=Caller("ann"))]  # alone: it makes the queue
        with ThreadPoolExecutor(8) as threads:
            flood += threads.map(lambda _: client.submit(request, caller=Caller("ann")), range(1000))
        start_worker(env, "threads", SLOTS).wait_ready()
        wait_until(lambda: client.get(flood[0].task_id).status.is_terminal, 20, "the flood runs")
        for _ in range(3):
            other = client.wait(client.submit(request, caller=Caller("bob")).task_id, 20)
            begun = [_started(record) for record in map(client.get, (one.task_id for one in flood))]
            before_it = [at for at in begun if other.created_at <= at <= _started(other)]
            assert len(before_it) <= SHARE + SLOTS


def test_all_that_waits_runs_once_and_in_order(
    kind: str, stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env = stack_env(kind, TEXTGEN_OWNER_SHARE=2)
    with application(env):
        from textgen import client
        from textgen.store import open_store
        from textgen.tasks import generate

        ids = [generate.delay("hello", metadata={"mock": {"tokens": 1}}).id for _ in range(80)]
        urgent = generate.delay("hello", priority=9).id
        assert open_store().client.zcard(f"{keys.WAITING}default/interactive") == 79
        # no janitor works: it is each task's end that lets the next one in
        open_store().client.set(keys.LEADER, "nobody", px=300_000)
        start_worker(env, "threads", 1).wait_ready()
        records = [client.wait(task_id, 60) for task_id in [*ids, urgent]]
        assert {(record.status, record.attempt) for record in records} == {(Status.COMPLETED, 1)}
        ran = [record.task_id for record in sorted(records, key=_started)]
        assert urgent in ran[1:3], "the next to be let in; to run, where the broker has priorities"
        assert [task_id for task_id in ran if task_id != urgent] == ids
        open_store().client.delete(keys.LEADER)
        wait_until(lambda: not open_store().client.hlen(keys.HELD), 10, "all is settled")
        assert not open_store().client.exists(keys.QUEUES)
        assert set(open_store().client.hgetall(keys.LANES)) == {"#"}


def _started(record: Any) -> str:
    """When it began, as a text that sorts; empty where it has not."""
    return record.started_at or ""


def test_a_task_that_waits_can_be_cancelled_and_has_a_deadline(
    stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env = stack_env("rabbitmq", TEXTGEN_OWNER_SHARE=1)
    with application(env):
        from textgen import client
        from textgen.store import open_store
        from textgen.tasks import generate

        long = generate.delay("hello", metadata={"mock": {"tokens": 600, "delay_s": 0.1}})
        start_worker(env).wait_ready()
        late, cancelled, last = [generate.delay("hello", deadline_s=seconds) for seconds in (1, 60, 60)]
        assert client.cancel(cancelled.id).status == Status.CANCELLED
        record = client.wait(late.id, 20)
        assert (record.status, record.error.type, record.attempt) == (Status.FAILED, "deadline", 0)
        waiting = f"{keys.WAITING}default/interactive"
        wait_until(lambda: open_store().client.zrange(waiting, 0, -1) == [last.id], 10, "they left the list")
        assert client.get(last.id).status == Status.PENDING
        open_store().client.zadd(keys.OUTBOX, {last.id: 0})
        wait_until(lambda: not open_store().is_scheduled(last.id), 10, "the outbox has looked at it")
        assert open_store().client.zrange(waiting, 0, -1) == [last.id]
        assert client.overview().queues["text_generation_tasks"] == 0
        client.cancel(long.id)
        assert client.wait(last.id, 20).status == Status.COMPLETED


def test_a_worker_killed_over_and_over_loses_no_task_that_waits(
    stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env = stack_env("rabbitmq", TEXTGEN_OWNER_SHARE=2, TEXTGEN_LEASE_S=1, TEXTGEN_MAX_ATTEMPTS=20)
    with application(env):
        from textgen import client
        from textgen.store import open_store
        from textgen.tasks import generate

        ids = [generate.delay("hello", metadata=TASK).id for _ in range(20)]
        for ended in (1, 4, 8):
            worker = start_worker(env, "threads", 4).wait_ready()
            wait_until(lambda n=ended: _ended(ids) >= n, 30, f"{ended} have ended")
            worker.kill()
        start_worker(env, "threads", 4).wait_ready()
        assert {client.wait(task_id, 60).status for task_id in ids} == {Status.COMPLETED}
        wait_until(lambda: not open_store().client.hlen(keys.HELD), 10, "all is settled")
        [row] = client.usage(client.today(), client.today())
        assert row.requests == 20


def _ended(ids: list[str]) -> int:
    from textgen.store import open_store

    return sum(open_store().get(task_id).status.is_terminal for task_id in ids)


def test_a_share_that_is_taken_back_lets_all_in(
    stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env = stack_env("rabbitmq", TEXTGEN_OWNER_SHARE=1)
    with application(env):
        from textgen import client
        from textgen.tasks import generate

        ids = [generate.delay("hello").id for _ in range(10)]
        start_worker(env | {"TEXTGEN_OWNER_SHARE": "0"}).wait_ready()
        assert {client.wait(task_id, 30).status for task_id in ids} == {Status.COMPLETED}
