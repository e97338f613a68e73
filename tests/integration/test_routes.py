"""Routes on real parts: an engine that cannot write is followed by the next, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.application import application
from tests.environment import Environment
from tests.integration.terminals import textgen
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from tests.provider_stub import ProviderStub
from textgen.lifecycle import new_task_id

PATIENCE_S = 40
QUEUE = "text_generation_tasks"
#: Dollars per million tokens.
PRICES = {"openai/big": {"prompt": 0, "completion": 1000}, "anthropic": {"prompt": 0, "completion": 100}}
ROUTES = {
    "smart": ["openai/big", "anthropic"],
    "spread": {"by": "weight", "engines": [{"engine": "openai", "weight": 3}, "anthropic"]},
    "cheap": {"by": "cost", "engines": ["openai/big", "anthropic"]},
}


@pytest.fixture
def two(
    stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> Iterator[SimpleNamespace]:
    """Two providers, `first` (openai) and `second` (anthropic), and what it takes to use them."""
    with ExitStack() as stack:
        first = stack.enter_context(ProviderStub(words=("one ", "one ")))
        second = stack.enter_context(ProviderStub(words=("two ", "two ", "two")))

        def start(kind: str = "rabbitmq", workers: int = 1, slots: int = 4, **more: Any) -> Environment:
            env = stack_env(kind, **settings(first, second) | more)
            stack.enter_context(application(env))
            for worker in [start_worker(env, "threads", slots) for _ in range(workers)]:
                worker.wait_ready()
            return env

        yield SimpleNamespace(first=first, second=second, start=start)


def settings(first: ProviderStub, second: ProviderStub) -> dict[str, Any]:
    return {
        "TEXTGEN_ENGINE": "smart",
        "TEXTGEN_ROUTES": json.dumps(ROUTES),
        "TEXTGEN_PRICES": json.dumps(PRICES),
        "TEXTGEN_BREAKER_RESET_S": 1,
        "OPENAI_BASE_URL": f"{first.url}/v1",
        "OPENAI_MODEL": "small",
        "ANTHROPIC_BASE_URL": second.url,
        "ANTHROPIC_MODEL": "claude",
    }


def submit(**fields: Any) -> str:
    from textgen.tasks import generate

    return str(generate.delay("Hello", **fields).id)


def ended(task_id: str, timeout_s: float = PATIENCE_S) -> Any:
    from textgen import client

    record = client.wait(task_id, timeout_s)
    assert record.status.is_terminal, record
    return record


def reasons(record: Any) -> list[tuple[str, int, str]]:
    return [(one["engine"], one["attempt"], one["reason"]) for one in record.tried]


def test_the_next_engine_writes_when_the_first_cannot(two: SimpleNamespace) -> None:
    two.start()
    two.first.does.is_down = True

    record = ended(submit())

    assert (record.status, record.result) == ("COMPLETED", "two two two")
    assert (record.engine, record.model, record.attempt, record.failures) == ("anthropic", "claude", 2, 0)
    assert reasons(record) == [("openai", 1, "openai answered 503: no")]
    assert record.tried[0]["model"] == "big"


def test_a_fallback_after_partial_text_restarts_the_text_and_bills_both(two: SimpleNamespace) -> None:
    two.start()
    two.first.does.breaks_after = 1
    task_id = submit()

    record = ended(task_id)

    from textgen import client

    log = [(event.type, event.attempt, event.data) for event in client.stream(task_id) if event]
    assert ("reset", 1, {"reason": "fallback"}) in log
    at = log.index(("reset", 1, {"reason": "fallback"}))
    assert [data["text"] for kind, _, data in log[:at] if kind == "chunk"] == ["one "]
    assert "".join(data["text"] for kind, _, data in log[at:] if kind == "chunk") == record.result
    assert record.result == "two two two"
    # a token of the one at 1000 dollars a million, three of the other at 100
    assert record.usage.cost_usd == pytest.approx(0.001 + 0.0003)
    wait_until(lambda: client.usage(client.today(), client.today()), 10, "it is billed")
    [used] = client.usage(client.today(), client.today())
    assert used.completion_tokens == 1 + 3


def test_when_all_have_failed_another_round_begins_after_a_wait(two: SimpleNamespace) -> None:
    two.start(TEXTGEN_BREAKER_FAILURES=100)
    two.first.does.is_down = two.second.does.is_down = True
    task_id = submit()
    wait_until(lambda: len(two.second.arrivals) >= 2, PATIENCE_S, "a second round")
    two.first.does.is_down = False

    record = ended(task_id)

    assert (record.status, record.result) == ("COMPLETED", "one one ")
    assert record.failures >= 2
    assert record.attempt == len(record.tried) + 1
    assert [one["round"] for one in record.tried[:4]] == [0, 0, 1, 1]


def test_a_task_fails_when_no_round_is_left(two: SimpleNamespace) -> None:
    two.start(TEXTGEN_MAX_ATTEMPTS=2, TEXTGEN_BREAKER_FAILURES=100)
    two.first.does.is_down = two.second.does.is_down = True

    record = ended(submit())

    assert (record.status, record.failures, record.attempt) == ("FAILED", 2, 4)
    assert record.error.message == "anthropic answered 503: no"


def test_an_engine_that_is_not_set_up_here_is_passed_over_too(two: SimpleNamespace) -> None:
    two.start(OPENAI_BASE_URL="")

    record = ended(submit(engine="openai,anthropic"))

    assert (record.status, record.engine, record.attempt) == ("COMPLETED", "anthropic", 2)
    assert "OPENAI_API_KEY" in record.tried[0]["reason"]
    alone = ended(submit(engine="openai"))
    assert (alone.status, alone.attempt) == ("FAILED", 1)


def test_what_one_engine_refuses_for_good_the_others_are_not_asked(two: SimpleNamespace) -> None:
    two.start()

    record = ended(submit(engine="mock,anthropic", metadata={"mock": {"failure": "permanent"}}))

    assert (record.status, record.error.type, record.tried) == ("FAILED", "PermanentEngineError", [])
    assert not two.second.arrivals


def test_a_model_is_priced_by_the_name_it_was_asked_by(two: SimpleNamespace) -> None:
    two.start(
        TEXTGEN_PRICES=json.dumps({"openai/small": {"prompt": 0, "completion": 1000}}), TEXTGEN_MAX_ATTEMPTS=1
    )
    two.first.does.version = "-2026-08-07"
    record = ended(submit(engine="openai"))
    assert (record.model, record.usage.cost_usd) == ("small-2026-08-07", pytest.approx(0.002))
    two.first.does.breaks_after = 1
    record = ended(submit(engine="openai"))
    assert (record.status, record.model, record.usage.cost_usd) == ("FAILED", "small", pytest.approx(0.001))
    two.first.does.breaks_after, two.first.does.word_s = None, 30.0
    task_id = submit(engine="openai")
    from textgen import client
    from textgen.store import open_store

    wait_until(lambda: open_store().control(task_id).tokens, PATIENCE_S, "a token is written")
    assert client.cancel(task_id).usage.cost_usd == pytest.approx(0.001)


def test_weights_and_costs_choose_the_first(two: SimpleNamespace) -> None:
    two.start()
    cheap = ended(submit(engine="cheap"))
    assert (cheap.engine, cheap.attempt) == ("anthropic", 1)
    tasks = [submit(engine="spread") for _ in range(40)]
    engines = [ended(task_id).engine for task_id in tasks]
    assert 20 <= engines.count("openai") < 40
    assert {body["model"] for body in two.first.asked} == {"small"}


@pytest.mark.parametrize("kind", ["rabbitmq", "valkey"])
def test_a_provider_that_is_down_is_left_alone_and_tried_again(two: SimpleNamespace, kind: str) -> None:
    two.start(kind, workers=2, TEXTGEN_BREAKER_FAILURES=3, TEXTGEN_BREAKER_RESET_S=1)
    two.first.does.is_down = True
    first_batch = [submit() for _ in range(60)]
    records = [ended(task_id) for task_id in first_batch]
    assert {(one.status, one.engine, one.failures) for one in records} == {("COMPLETED", "anthropic", 0)}
    assert any(one.attempt == 1 and reasons(one) == [("openai", 1, "circuit open")] for one in records)
    assert len(two.first.arrivals) < 3 + 8 + 10, "its slots at once, then one a second"

    two.first.does.is_down = False
    back = [ended(submit()) for _ in range(3)]
    wait_until(lambda: ended(submit()).engine == "openai", PATIENCE_S, "the first is back")
    assert {one.status for one in back} == {"COMPLETED"}


def test_without_another_engine_tasks_wait_until_the_provider_is_back(two: SimpleNamespace) -> None:
    two.start(TEXTGEN_BREAKER_FAILURES=2, TEXTGEN_MAX_ATTEMPTS=3)
    two.first.does.is_down = True
    tasks = [submit(engine="openai") for _ in range(12)]
    wait_until(lambda: len(two.first.arrivals) >= 6, PATIENCE_S, "some tried to find out")
    two.first.does.is_down = False

    records = [ended(task_id) for task_id in tasks]

    done = [one for one in records if one.status == "COMPLETED"]
    assert len(done) >= 10, "only those that tried can have failed"
    assert [one.attempt for one in done].count(1) >= 6, "to wait is no attempt"


def test_a_task_that_waits_for_a_provider_can_be_cancelled_and_has_a_deadline(two: SimpleNamespace) -> None:
    two.start(
        TEXTGEN_BREAKER_FAILURES=1, TEXTGEN_BREAKER_RESET_S=600, TEXTGEN_MAX_ATTEMPTS=1, TEXTGEN_LEASE_S=1
    )
    two.first.does.is_down = True
    assert ended(submit(engine="openai")).status == "FAILED"
    waiting, late = submit(engine="openai"), submit(engine="openai", deadline_s=6)

    from textgen import client
    from textgen.store import open_store

    wait_until(lambda: open_store().control(waiting).parked_ms, PATIENCE_S, "it is parked")
    assert client.cancel(waiting).status == "CANCELLED"
    assert ended(late).error.type == "deadline"
    assert "published again" not in client.overview().janitor, "nobody takes its message for lost"
    assert client.get(waiting).attempt == client.get(late).attempt == 0
    assert len(two.first.arrivals) == 1


@pytest.mark.parametrize("kind", ["rabbitmq", "valkey"])
def test_what_a_foreign_producer_asks_for_waits_too(two: SimpleNamespace, kind: str) -> None:
    two.start(kind, TEXTGEN_BREAKER_FAILURES=1, TEXTGEN_BREAKER_RESET_S=2, TEXTGEN_MAX_ATTEMPTS=1)
    two.first.does.is_down = True
    assert ended(submit(engine="openai")).status == "FAILED"
    two.first.does.is_down = False

    from celery import current_app

    task_id = new_task_id()
    asked = {"prompt": "Hello", "engine": "openai"}
    current_app.send_task("textgen.tasks.generate", kwargs=asked, task_id=task_id, queue=QUEUE)

    from textgen.store import open_store

    wait_until(lambda: open_store().get(task_id), PATIENCE_S, "it is known")
    record = ended(task_id)
    assert (record.status, record.result, record.failures) == ("COMPLETED", "one one ", 0)
    assert len(two.first.arrivals) == 2


def test_a_route_can_be_asked_for_by_every_way_in(
    two: SimpleNamespace, start_web: Callable[..., WebProcess]
) -> None:
    env = two.start()
    two.first.does.is_down = True
    tasks = f"{start_web(env).url}/v1/tasks"

    answer = httpx.post(
        tasks, json={"prompt": "Hello", "engine": "smart"}, headers={"Prefer": "wait=30"}, timeout=40
    ).json()
    assert (answer["result"], answer["tried"][0]["engine"]) == ("two two two", "openai")
    listed = httpx.get(tasks, params={"engine": "anthropic"}, timeout=20).json()["data"]
    assert [one["task_id"] for one in listed] == [answer["task_id"]]
    refused = httpx.post(tasks, json={"prompt": "Hello", "engine": "smart,openai"}, timeout=20)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "engine"
    assert textgen(env, "single", "--engine", "openai,anthropic", "Hello").stdout.strip() == "two two two"


def test_an_attempt_whose_worker_died_begins_a_new_round(
    two: SimpleNamespace, start_worker: Callable[..., WorkerProcess]
) -> None:
    env = two.start(workers=0, TEXTGEN_LEASE_S=1, TEXTGEN_ATTEMPT_MARGIN_S=1)
    worker = start_worker(env, "threads", 1).wait_ready()
    two.first.does.is_down, two.second.does.delay_s = True, 60
    task_id = submit()
    wait_until(lambda: two.second.arrivals, PATIENCE_S, "the second writes")

    from textgen import client

    running = client.get(task_id)
    assert (running.status, running.engine, running.attempt) == ("PROCESSING", "anthropic", 2)
    worker.kill()
    two.first.does.is_down = False
    start_worker(env, "threads", 1).wait_ready()

    record = ended(task_id)
    assert (record.result, record.engine, record.failures, record.attempt) == ("one one ", "openai", 1, 3)


def test_a_provider_that_hangs_past_the_limit_of_an_attempt_has_failed(two: SimpleNamespace) -> None:
    two.start(TEXTGEN_LEASE_S=1, TEXTGEN_ATTEMPT_MARGIN_S=1)
    two.first.does.delay_s = 60

    assert ended(submit(engine="openai", attempt_timeout_s=1)).error.type == "attempt_hung"

    from textgen import client

    [openai] = [one for one in client.engine_states() if one.name == "openai"]
    assert openai.account.failures == 1
