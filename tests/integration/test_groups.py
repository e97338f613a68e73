"""A group is one submit: many at once do not wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chain, group

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until

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
