"""The ledger: what a task has used is billed once, however it ended and whoever died over it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from tests.application import application
from tests.environment import Environment, new_folder, of_process
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from textgen.lifecycle import Record, Status

#: Dollars per million tokens of prompt and text.
PRICES = '{"mock": {"prompt": 1000, "completion": 2000}}'
PROMPT = "one two three"


@pytest.fixture
def env(stack_env: Callable[..., Environment]) -> Iterator[Environment]:
    env = stack_env("rabbitmq", TEXTGEN_PRICES=PRICES, TEXTGEN_LEASE_S=1, TEXTGEN_MAX_ATTEMPTS=2)
    with application(env):
        yield env


def submit(**plan: Any) -> str:
    from textgen.tasks import generate

    limits = plan.pop("limits", {})
    return str(generate.delay(PROMPT, metadata={"mock": plan}, **limits).id)


def written(task_id: str, tokens: int) -> None:
    """Wait until an attempt has written so many tokens."""
    from textgen.store import open_store

    def enough() -> bool:
        control = open_store().control(task_id)
        return control is not None and control.tokens >= tokens

    wait_until(enough, 20, f"{tokens} tokens are written")


def billed() -> Any:
    """The ledger's one row, once nothing is held any more."""
    from textgen import client
    from textgen.store import keys, open_store

    wait_until(lambda: not open_store().client.hlen(keys.HELD), 20, "all is settled")
    [row] = client.usage(client.today(), client.today())
    return row


def ended(task_id: str) -> Record:
    from textgen import client

    record = client.wait(task_id, 30)
    assert record.status.is_terminal
    return record


def check(record: Record, attempts: list[tuple[int, int]]) -> None:
    """The record and the ledger tell of the same attempts, each given by its tokens."""
    row, prompt, text = billed(), sum(p for p, _ in attempts), sum(c for _, c in attempts)
    assert (row.requests, row.prompt_tokens, row.completion_tokens) == (1, prompt, text)
    cost = (prompt * 1000 + text * 2000) / 1e6
    assert row.as_dict()["cost_usd"] == pytest.approx(cost)
    assert record.usage is not None
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == attempts[-1]
    assert record.usage.cost_usd == pytest.approx(cost)


def test_a_completed_task_is_billed(env: Environment, start_worker: Callable[..., WorkerProcess]) -> None:
    start_worker(env).wait_ready()
    check(ended(submit(tokens=5)), [(3, 5)])


def test_a_task_that_failed_after_some_text_is_billed_for_it(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker(env).wait_ready()
    record = ended(submit(tokens=9, failure="permanent", after=4))
    assert record.status == Status.FAILED
    check(record, [(3, 4)])


def test_each_attempt_is_billed(env: Environment, start_worker: Callable[..., WorkerProcess]) -> None:
    start_worker(env).wait_ready()
    record = ended(submit(tokens=6, failure="transient", after=2, times=1))
    assert (record.status, record.attempt) == (Status.COMPLETED, 2)
    check(record, [(3, 2), (3, 6)])


def test_a_cancelled_task_is_billed_for_what_it_wrote(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen import client

    start_worker(env).wait_ready()
    task_id = submit(tokens=600, delay_s=0.05)
    written(task_id, 3)
    record = client.cancel(task_id)
    check(record, [(3, len((record.result or "").split()))])


def test_a_task_cancelled_between_two_attempts_is_billed_for_the_first(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen import client
    from textgen.store import open_store

    start_worker(env).wait_ready()
    task_id = submit(tokens=6, failure="transient", after=2, retry_after_s=60)
    wait_until(lambda: open_store().control(task_id).failures == 1, 20, "it waits for the second")
    record, row = client.cancel(task_id), billed()
    assert (row.requests, row.prompt_tokens, row.completion_tokens) == (1, 3, 2)
    assert record.usage is not None
    assert (record.usage.completion_tokens, record.usage.cost_usd) == (0, row.as_dict()["cost_usd"])


def test_a_task_past_its_deadline_is_billed_for_what_it_wrote(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker(env).wait_ready()
    record = ended(submit(tokens=600, delay_s=0.05, limits={"deadline_s": 1}))
    assert record.error is not None
    assert record.error.type == "deadline"
    check(record, [(3, len((record.result or "").split()))])


def test_a_task_whose_workers_were_killed_is_billed_for_what_they_wrote(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen.store import open_store

    task_id, wrote = submit(tokens=600, delay_s=0.1), []
    for attempt in (1, 2):
        worker = start_worker(env).wait_ready()
        wait_until(lambda n=attempt: open_store().control(task_id).attempt == n, 30, "the attempt begins")
        written(task_id, 2)
        worker.kill()
        wrote.append((3, open_store().control(task_id).tokens))
    start_worker(env).wait_ready()
    record = ended(task_id)
    assert record.error is not None
    assert record.error.type == "worker_lost"
    check(record, wrote)


def test_a_task_that_never_ran_costs_nothing(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen import client

    assert client.cancel(submit()).usage is None
    row = billed()
    assert (row.requests, row.completion_tokens, row.nano) == (1, 0, None)


def test_a_submit_that_the_broker_refused_is_not_billed(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textgen import client
    from textgen.errors import BrokerUnavailable
    from textgen.hooks import GenerateTask
    from textgen.store import keys, open_store

    def refuse(*_: Any) -> None:
        raise BrokerUnavailable("no")

    monkeypatch.setattr(GenerateTask, "_publish", refuse)
    with pytest.raises(BrokerUnavailable):
        submit()
    assert open_store().client.hlen(keys.HELD) == 0
    assert client.usage(client.today(), client.today()) == []


def test_who_dies_between_the_end_of_a_task_and_its_bill_leaves_it_to_the_janitor(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    """Given the two steps by hand, and no process that does the second."""
    from textgen import outcomes
    from textgen.store import keys, open_store

    task_id, store = submit(), open_store()
    _purge()
    control = store.control(task_id)
    taken = store.claim(store.get(task_id), control.terms, "token", "worker")
    store.append(task_id, "token", 0, "some text", tokens=2, prompt_tokens=3)
    outcomes.cancel(store, task_id)
    assert taken.record is not None
    assert store.client.hlen(keys.HELD) == 1
    start_worker(env).wait_ready()
    check(store.get(task_id), [(3, 2)])


#: Kills the worker that calls this function of `textgen.settlement`.
DIES = """
import os, wrapt

@wrapt.when_imported("textgen.settlement")
def dies(module):
    setattr(module, "{step}", lambda _, given, *rest: given and os.kill(os.getpid(), 9))
"""


@pytest.mark.parametrize("step", ["settle_now", "publish"])
def test_a_worker_killed_while_it_settles_loses_no_bill_and_no_task_that_waits(
    env: Environment, step: str, start_worker: Callable[..., WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a task that waits for the end of another, whose worker dies before or after its bill."""
    from textgen import client
    from textgen.settings import get_settings

    monkeypatch.setenv("TEXTGEN_OWNER_SHARE", "1")
    get_settings.cache_clear()
    env = env | {"TEXTGEN_OWNER_SHARE": "1"}
    ids, folder = [submit(tokens=5) for _ in range(2)], new_folder("dies")
    (folder / "sitecustomize.py").write_text(DIES.format(step=step))
    dying = start_worker(env | {"PYTHONPATH": str(folder)}, "threads", 1)
    wait_until(lambda: not dying.is_alive, 30, "it has died")
    assert client.get(ids[1]).attempt == 0
    start_worker(env).wait_ready()
    assert {ended(task_id).status for task_id in ids} == {Status.COMPLETED}
    row = billed()
    assert (row.requests, row.prompt_tokens, row.completion_tokens) == (2, 6, 10)


def _purge() -> None:
    """Take all messages away, so that no delivery settles what the janitor is to."""
    from textgen.celery import app

    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge("text_generation_tasks")


def test_who_dies_between_admission_and_submit_leaves_nothing_held(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen import client
    from textgen.admission import admit
    from textgen.caller import Caller
    from textgen.lifecycle import Record, new_task_id
    from textgen.settings import get_settings
    from textgen.store import keys, open_store

    store, record = open_store(), Record(new_task_id(), prompt="hello")
    admit(store, get_settings(), record, Caller("default"))
    store.client.zadd(keys.UNSETTLED, {record.task_id: 0})
    start_worker(env).wait_ready()
    wait_until(lambda: not store.client.hlen(keys.HELD), 20, "nothing is held")
    assert client.usage(client.today(), client.today()) == []


def test_a_task_is_settled_once_however_often_it_is_tried(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from textgen import outcomes, settlement
    from textgen.settings import get_settings
    from textgen.store import open_store

    task_id = submit()
    outcomes.cancel(open_store(), task_id)
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda _: settlement.settle(open_store(), get_settings(), task_id), range(40)))
    assert billed().requests == 1


def test_a_submit_repeated_after_the_end_is_not_billed_again(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen.lifecycle import new_task_id
    from textgen.tasks import generate

    start_worker(env).wait_ready()
    task_id = new_task_id()
    for _ in range(2):
        generate.apply_async((PROMPT,), {"metadata": {"mock": {"tokens": 5}}}, task_id=task_id)
        record = ended(task_id)
        check(record, [(3, 5)])


def test_a_task_of_a_foreign_producer_is_billed(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from celery import Celery

    from textgen.lifecycle import new_task_id
    from textgen.store import open_store

    start_worker(env).wait_ready()
    task_id, body = new_task_id(), {"prompt": PROMPT, "metadata": {"mock": {"tokens": 5}}}
    with Celery(broker=env["CELERY_BROKER_URL"], set_as_current=False) as foreign:
        foreign.conf.task_create_missing_queue_type = "quorum"
        foreign.send_task(
            "textgen.tasks.generate",
            kwargs=body,
            task_id=task_id,
            exchange="text_generation_tasks",
            routing_key="text_generation_tasks",
        )
    wait_until(lambda: open_store().get(task_id) is not None, 20, "it is received")
    check(ended(task_id), [(3, 5)])


def test_usage_is_told_over_http(
    env: Environment, start_web: Callable[..., WebProcess], start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker(env).wait_ready()
    ended(submit(tokens=5))
    row = billed()
    url = start_web(env).url
    answer = httpx.get(f"{url}/v1/usage?from={row.day}&to={row.day}")
    shown = {
        "day": row.day,
        "key": None,
        "requests": 1,
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "cost_usd": 0.013,
    }
    assert answer.json() == {"data": [shown]}

    nowhere = env | {"TEXTGEN_URL": url, "REDIS_URL": "redis://127.0.0.1:1/0"}
    command = [sys.executable, "-c", "from textgen.cli import main; main()", "usage"]
    run = partial(subprocess.run, env=of_process(nowhere), capture_output=True, text=True, check=False)
    assert json.loads(run([*command, "--json", "--from", row.day]).stdout) == [shown]
    assert json.loads(run([*command, "--json", "--from", "2999-01-01"]).stdout) == []
    refused = run([*command, "--owner", "ann"])
    assert (refused.returncode, "--owner" in refused.stderr) == (2, True)


def test_a_task_that_is_deleted_before_anybody_settled_it_is_billed(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textgen import client, settlement

    task_id = submit(tokens=5)
    with monkeypatch.context() as patched:
        patched.setattr(settlement, "settle_now", lambda *_: None)
        client.cancel(task_id)
    client.delete(task_id)
    assert billed().requests == 1
