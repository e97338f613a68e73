"""A group is one submit: many at once do not wait for each other, and one that breaks off leaves nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chain, group

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WorkerProcess

#: More than the connections of one process, of which each group holds one while it is submitted.
GROUPS, MEMBERS = 25, 3


@pytest.fixture
def stack(stack_env: Callable[..., Environment]) -> Iterator[Environment]:
    env = stack_env("rabbitmq")
    with application(env):
        yield env


def at_once(act: Callable[[int], Any]) -> list[Any]:
    """What each of many threads came to; fails where one does not come back."""
    found: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: found.append(act(n)), daemon=True) for n in range(GROUPS)]
    for thread in threads:
        thread.start()
    wait_until(lambda: not any(thread.is_alive() for thread in threads), 60, "all have an answer")
    return found


def test_more_groups_at_once_than_there_are_connections_are_accepted(stack: Environment) -> None:
    from textgen import client
    from textgen.tasks import generate

    def submit(number: int) -> list[str]:
        members = [generate.s(f"Hello {number} {member}") for member in range(MEMBERS)]
        return [result.id for result in group(members).apply_async().children]

    ids = {task_id for ids in at_once(submit) for task_id in ids}
    assert len(ids) == GROUPS * MEMBERS
    assert {client.get(task_id).status for task_id in ids} == {"PENDING"}


def test_groups_of_chains_at_once_are_accepted_or_refused(stack: Environment) -> None:
    from textgen.errors import BrokerUnavailable
    from textgen.tasks import generate

    def submit(number: int) -> str:
        links = chain(generate.s(f"Hello {number}"), generate.s())
        try:
            group([links, generate.s("Hello")]).apply_async()
        except BrokerUnavailable:
            return "refused"
        return "accepted"

    outcomes = at_once(submit)
    assert len(outcomes) == GROUPS
    assert set(outcomes) <= {"accepted", "refused"}


def break_off(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[str], Any] = lambda task_id: None
) -> list[str]:
    """Submit a group whose third member the broker does not take; returns the ids of those before it."""
    from textgen.errors import BrokerUnavailable
    from textgen.hooks import GenerateTask
    from textgen.tasks import generate

    sent: list[str] = []
    send = GenerateTask.send

    def first_two(self: GenerateTask, record: Any, *args: Any) -> None:
        if len(sent) == 2:
            before(sent[0])
            raise BrokerUnavailable("no broker")
        sent.append(record.task_id)
        send(self, record, *args)

    slow = {"mock": {"delay_s": 0.05, "tokens": 900}}
    with monkeypatch.context() as patched:
        patched.setattr(GenerateTask, "send", first_two)
        with pytest.raises(BrokerUnavailable):
            group(generate.s(f"Hello {n}", max_tokens=1000, metadata=slow) for n in range(5)).apply_async()
    return sent


def test_nothing_of_a_group_that_breaks_off_becomes_visible_or_runs(
    stack: Environment, start_worker: Callable[..., WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    from textgen import client
    from textgen.tasks import generate

    sent = break_off(monkeypatch)
    assert client.recent(10) == []

    worker = start_worker(stack, "threads", 1).wait_ready()
    after = generate.delay("Hello")
    assert client.wait(after.id, 40).status == "COMPLETED"
    assert [record.task_id for record in client.recent(10)] == [after.id]
    # their messages had their turn before the one that ran
    wait_until(lambda: all(f"[{task_id}] received" in worker.log() for task_id in sent), 10, "they came")


def test_what_had_begun_of_a_group_that_breaks_off_is_cancelled(
    stack: Environment, start_worker: Callable[..., WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    from textgen import client

    start_worker(stack, "threads", 1).wait_ready()

    def runs(task_id: str) -> None:
        wait_until(lambda: client.get(task_id).status == "PROCESSING", 30, "the first member runs")

    first, _ = break_off(monkeypatch, runs)
    assert [(record.task_id, record.status) for record in client.recent(10)] == [(first, "CANCELLED")]
