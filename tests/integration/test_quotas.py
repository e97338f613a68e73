"""Limits: what is over one is refused, by whatever way it comes, and what is refused leaves nothing."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.application import application
from tests.environment import Environment
from tests.integration.terminals import documents, textgen
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from tests.services import PrivateRedis
from textgen.caller import Caller, Limits
from textgen.lifecycle import Record, new_task_id
from textgen.settings import Settings
from textgen.store import Store, keys, meter
from textgen.store.connection import connect
from textgen.store.meter import Admission, Reservation

NONE = Limits()


@pytest.fixture
def store(redis_server: PrivateRedis) -> Iterator[Store]:
    client = connect(Settings(redis_url=redis_server.url_of(redis_server.new_database())))
    yield Store(client, 8.0)
    client.close()


def admit(store: Store, each: Limits = NONE, all_: Limits = NONE, **given: Any) -> Admission:
    reserved = Reservation(given.get("tokens", 10), given.get("nano", 10_000))
    record = Record(given.get("task_id") or new_task_id(), owner=given.get("owner", "ann"))
    caller = Caller(record.owner, given.get("key", "k1"))
    return meter.admit(store, record, caller, reserved, each, all_, given.get("share", 0))


RACES = {
    "requests": (Limits(requests_per_minute=17), NONE),
    "tokens": (Limits(tokens_per_minute=170), NONE),
    "tasks": (Limits(tasks=17), NONE),
    "tokens of a day": (Limits(tokens_per_day=179), NONE),
    "dollars of a month": (Limits(usd_per_month=0.000170), NONE),
    "requests of all": (NONE, Limits(requests_per_minute=17)),
    "tasks of all": (Limits(tasks=50), Limits(tasks=17)),
    "tokens of a month of all": (NONE, Limits(tokens_per_month=170)),
}


@pytest.mark.parametrize("race", RACES)
def test_a_hundred_threads_that_race_for_a_limit_of_n_get_n(store: Store, race: str) -> None:
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda _: admit(store, *RACES[race]), range(100)))
    assert Counter(answer.word for answer in answers) == {"admitted": 17, "refused": 83}
    assert store.client.hlen(keys.HELD) == 17


def test_a_rate_comes_back_evenly_and_not_with_the_next_minute(store: Store) -> None:
    limits = Limits(requests_per_minute=600)
    refused = next(answer for answer in iter(lambda: admit(store, limits), None) if answer.word == "refused")
    assert (refused.limit, refused.scope) == ("requests_per_minute", "key")
    assert 0 < refused.retry_after_s <= 0.1
    assert refused.rates[0].remaining == 0
    time.sleep(refused.retry_after_s + 0.005)
    answers = [admit(store, limits).word for _ in range(3)]
    assert answers[0] == "admitted"
    assert "refused" in answers


def test_keys_have_limits_apart_and_all_have_one_together(store: Store) -> None:
    each, everybody = Limits(tasks=2), Limits(tasks=3)
    words = [admit(store, each, everybody, key=key) for key in ("k1", "k1", "k1", "k2", "k2")]
    assert [(one.limit, one.scope) for one in words if one.word == "refused"] == [
        ("tasks", "key"),
        ("tasks", "all"),
    ]


def test_what_is_refused_takes_nothing_from_any_limit(store: Store) -> None:
    admit(store, Limits(tasks=1))
    before = store.client.dump(keys.SCOPES + "ann/k1"), store.client.dump(keys.SCOPES + "*")
    assert admit(store, Limits(requests_per_minute=100, tasks=1)).word == "refused"
    assert (store.client.dump(keys.SCOPES + "ann/k1"), store.client.dump(keys.SCOPES + "*")) == before


def test_the_same_task_is_let_in_once(store: Store) -> None:
    task_id = new_task_id()
    assert [admit(store, task_id=task_id).word for _ in range(2)] == ["admitted", "already"]
    assert store.client.hget(keys.SCOPES + "ann/k1", "tasks") == "1"


def test_what_was_let_in_but_never_submitted_is_given_back_whole(store: Store) -> None:
    task_id, limits = new_task_id(), Limits(requests_per_minute=5, tokens_per_minute=50, tasks=1)
    admit(store, limits, task_id=task_id, tokens=50)
    held, control = meter.find(store, task_id)
    assert held is not None
    assert meter.settle(store, held, control, 0) == []
    assert [rate.remaining for rate in admit(store, limits, tokens=50).rates] == [4, 0]
    assert not store.client.keys(f"{keys.LEDGER}ann:*")


def test_every_key_of_limits_and_ledger_expires(store: Store) -> None:
    limits = Limits(*[1000] * 7)
    ids = [new_task_id() for _ in range(3)]
    for task_id in ids:
        admit(store, limits, limits, task_id=task_id, share=1)
    names = store.client.keys("*")
    assert len(names) == 7
    assert all(store.client.ttl(name) > 0 for name in names)


# Whole


def post(web: WebProcess, **body: Any) -> httpx.Response:
    return httpx.post(f"{web.url}/v1/tasks", json={"prompt": "Hello", **body}, timeout=30)


def test_a_hundred_requests_at_once_over_a_limit_make_as_many_tasks_as_it_allows(
    stack_env: Callable[..., Environment], start_web: Callable[..., WebProcess]
) -> None:
    env = stack_env("rabbitmq", TEXTGEN_LIMIT_TASKS=20, TEXTGEN_LIMIT_REQUESTS_PER_MINUTE=1000)
    web = start_web(env, workers=2)
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda _: post(web), range(100)))
    assert Counter(answer.status_code for answer in answers) == {202: 20, 429: 80}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["type"] == "urn:textgen:problem:limit-exceeded"
    assert refused.json()["limit"] == "tasks"
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.headers["RateLimit-Policy"] == '"requests";q=1000;w=60'
    assert re.fullmatch(r'"requests";r=\d+;t=\d+', refused.headers["RateLimit"])
    with application(env):
        from textgen import client
        from textgen.store import open_store

        assert client.overview().queues["text_generation_tasks"] == 20
        assert open_store().client.zcard(keys.CREATED) == 20
        assert len(open_store().client.keys("task:*")) == 20


def test_a_full_queue_refuses_until_tasks_have_ended(
    stack_env: Callable[..., Environment],
    start_web: Callable[..., WebProcess],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    env = stack_env("rabbitmq", TEXTGEN_MAX_QUEUED=2)
    web = start_web(env)
    assert [post(web).status_code for _ in range(3)] == [202, 202, 503]
    answer = post(web)
    assert answer.json()["type"] == "urn:textgen:problem:queue-full"
    assert "Retry-After" in answer.headers
    start_worker(env).wait_ready()
    wait_until(lambda: post(web).status_code == 202, 20, "there is room again")


def test_every_way_in_from_python_is_limited(stack_env: Callable[..., Environment]) -> None:
    env = stack_env("rabbitmq", TEXTGEN_LIMIT_TASKS=2, TEXTGEN_LIMIT_TOKENS_PER_MINUTE=1000)
    with application(env):
        from celery import group

        from textgen import client
        from textgen.errors import InvalidRequest, LimitExceeded
        from textgen.tasks import generate

        first = generate.delay("hello")
        client.TextGenerationProducer().create_task("hello")
        ways: list[Callable[[], Any]] = [
            lambda: generate.delay("hello"),
            lambda: generate.apply_async(("hello",), countdown=60),
            lambda: generate.s("hello").apply_async(),
            lambda: group(generate.s("hello")).apply_async(),
            lambda: client.TextGenerationProducer().create_task("hello"),
            lambda: client.TextGenerationProducer().create_task("hello", idempotency_key="k"),
        ]
        for way in ways:
            with pytest.raises(LimitExceeded):
                way()
        client.cancel(first.id)
        generate.delay("hello")
        with pytest.raises(InvalidRequest, match="max_tokens"):
            generate.delay("hello", max_tokens=2000)


def test_a_key_has_limits_of_its_own(stack_env: Callable[..., Environment]) -> None:
    env = stack_env("rabbitmq", TEXTGEN_LIMIT_TASKS=1)
    with application(env):
        from textgen.caller import Caller, Limits
        from textgen.errors import LimitExceeded
        from textgen.lifecycle import new_task_id
        from textgen.requests import parse_request
        from textgen.tasks import generate

        def submits(caller: Any, number: int) -> int:
            for done in range(number):
                try:
                    generate.accept(parse_request({"prompt": "hello"}), new_task_id(), {"caller": caller})
                except LimitExceeded:
                    return done
            return number

        assert submits(Caller("ann", "k1"), 4) == 1
        assert submits(Caller("ann", "k2", Limits(tasks=3)), 4) == 3
        assert submits(Caller("ann", "k3", Limits(tasks=0)), 4) == 4
        assert submits(Caller("ann", "k4", Limits(tasks=3), line="k2"), 1) == 0, "it replaces k2"


def test_a_budget_reserves_what_may_be_used_and_stops_when_it_is_used(
    stack_env: Callable[..., Environment],
    start_web: Callable[..., WebProcess],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    env = stack_env("rabbitmq", TEXTGEN_LIMIT_TOKENS_PER_DAY=230)
    web = start_web(env)
    body = {"max_tokens": 100, "metadata": {"mock": {"tokens": 20}}}
    assert [post(web, **body).status_code for _ in range(3)] == [202, 202, 429]
    assert post(web, **body).json()["limit"] == "budget"
    start_worker(env).wait_ready()
    wait_until(lambda: post(web, **body).status_code == 202, 20, "what was not used is free again")
    answers: list[httpx.Response] = []

    def is_used_up() -> bool:
        answers.append(post(web, **body))
        return answers[-1].status_code == 402

    wait_until(is_used_up, 20, "the budget is used up")
    assert answers[-1].json()["type"] == "urn:textgen:problem:budget-exhausted"
    assert answers[-1].json()["limit"] == "tokens_per_day"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 86_400
    rows = httpx.get(f"{web.url}/v1/usage").json()["data"]
    assert sum(row["completion_tokens"] + row["prompt_tokens"] for row in rows) <= 230
    run = textgen(env, "usage", "--json")
    assert documents(run)[0] == httpx.get(f"{web.url}/v1/usage").json()["data"]
    assert httpx.get(f"{web.url}/v1/usage?from=0001-01-01&to=9999-12-31").json()["data"] == rows


def test_a_chain_does_not_break_off_at_a_limit(
    stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env = stack_env("rabbitmq", TEXTGEN_LIMIT_REQUESTS_PER_MINUTE=1)
    start_worker(env).wait_ready()
    with application(env):
        from celery import chain

        from textgen import client
        from textgen.tasks import generate

        assert chain(generate.s("hello"), generate.s(), generate.s()).apply_async().get(timeout=30)
        wait_until(
            lambda: client.usage(client.today(), client.today())[0].requests == 3, 10, "all are billed"
        )
