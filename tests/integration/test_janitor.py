"""What no worker would find by itself: the janitor does, once, and counts it."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.application import application
from tests.environment import Environment
from tests.integration.terminals import documents, textgen
from tests.processes import Process, wait_until

LEASE_S = 1
PATIENCE_S = 40


@pytest.fixture
def env(stack_env: Callable[..., Environment]) -> Iterator[Environment]:
    """A stack with short leases that has seen nothing yet, and in which the test process is too."""
    env = stack_env("rabbitmq", TEXTGEN_LEASE_S=LEASE_S, TEXTGEN_ATTEMPT_MARGIN_S=1)
    with application(env):
        yield env


@pytest.fixture
def client(env: Environment) -> ModuleType:
    """The client in that stack."""
    from textgen import client

    return client


@pytest.fixture
def generate(env: Environment) -> Any:
    """The task in that stack."""
    from textgen.tasks import generate

    return generate


def done(env: Environment) -> dict[str, int]:
    """What the janitor has done, as `textgen monitor` shows it."""
    [look] = documents(textgen(env, "monitor", "--once", "--json"))
    return look["janitor"]


def new(env: Environment, before: dict[str, int]) -> dict[str, int]:
    after = done(env)
    return {what: after[what] - before.get(what, 0) for what in after if after[what] != before.get(what, 0)}


def begun(client: ModuleType, task_id: str) -> bool:
    return client.get(task_id).status == "PROCESSING"


def test_a_task_whose_worker_is_frozen_is_taken_over(
    env: Environment, client: ModuleType, generate: Any, start_worker: Callable
) -> None:
    before = done(env)
    frozen: Process = start_worker(env, "threads", 1).wait_ready()
    task = generate.delay("hello", metadata={"mock": {"tokens": 20, "delay_s": 0.1}})
    wait_until(lambda: begun(client, task.id), PATIENCE_S, "it runs")
    frozen.pause()  # the broker sees a connection that lives, and delivers nothing again
    start_worker(env, "threads", 1).wait_ready()

    record = client.wait(task.id, PATIENCE_S)

    assert (record.status, record.attempt) == ("COMPLETED", 2)
    assert new(env, before) == {"taken over": 1, "published": 1}
    shown = textgen(env, "monitor", "--once").stdout
    assert "janitor" in shown
    assert "taken over" in shown


def test_a_live_attempt_is_never_taken_over(
    env: Environment, client: ModuleType, generate: Any, start_worker: Callable
) -> None:
    before = done(env)
    start_worker(env, "threads", 1).wait_ready()
    start_worker(env, "threads", 1).wait_ready()
    task = generate.delay("hello", metadata={"mock": {"tokens": 5, "delay_s": LEASE_S}})

    record = client.wait(task.id, PATIENCE_S)

    assert (record.status, record.attempt) == ("COMPLETED", 1)
    assert new(env, before) == {}


def test_a_task_that_no_lane_holds_is_published_again(
    env: Environment, client: ModuleType, generate: Any, start_worker: Callable
) -> None:
    before = done(env)
    task = generate.delay("hello")
    with generate.app.connection_for_write() as connection:
        assert connection.default_channel.queue_purge("text_generation_tasks") >= 1

    start_worker(env, "threads", 1).wait_ready()

    assert client.wait(task.id, PATIENCE_S).status == "COMPLETED"
    assert new(env, before)["published again"] >= 1


def test_a_task_of_a_dead_worker_fails_at_its_deadline(
    env: Environment, client: ModuleType, generate: Any, start_worker: Callable
) -> None:
    before = done(env)
    frozen: Process = start_worker(env, "threads", 1).wait_ready()
    task = generate.delay("hello", metadata={"mock": {"tokens": 100, "delay_s": 0.1}}, deadline_s=2)
    wait_until(lambda: begun(client, task.id), PATIENCE_S, "it runs")
    frozen.pause()
    start_worker(env, "threads", 1).wait_ready()

    record = client.wait(task.id, PATIENCE_S)

    assert (record.status, record.error.type) == ("FAILED", "deadline")
    assert new(env, before)["expired"] == 1


@pytest.mark.parametrize("command", [("SET", "{"), ("LPUSH", "no text")])
def test_a_task_that_nobody_can_read_holds_up_no_other(
    env: Environment, client: ModuleType, command: tuple[str, str]
) -> None:
    from textgen.celery import app
    from textgen.janitor import Janitor
    from textgen.requests import parse_request
    from textgen.settings import get_settings
    from textgen.store import keys, open_store

    store = open_store()
    odd, other = (client.submit(parse_request({"prompt": "x"})).task_id for _ in range(2))
    store.client.delete(keys.record(odd))
    store.client.execute_command(command[0], keys.record(odd), command[1])
    for number, task_id in enumerate((odd, other)):
        store.client.zadd(keys.WATCH, {task_id: number})
    store.client.hset(keys.state(other), "deadline", 1)
    janitor = Janitor(app, get_settings(), store, "here")
    janitor._each(janitor.watch, janitor._look)
    assert client.get(other).status == "FAILED"
    assert store.client.zscore(keys.WATCH, odd) > store.now_ms()
