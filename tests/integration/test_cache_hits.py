"""A request that was answered before is answered at once, with or without a worker; and all else holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from tests.receiver import Receiver
from textgen.caller import Caller
from textgen.lifecycle import Record, Status, Usage
from textgen.store import keys

PRICES = '{"mock": {"prompt": 1000, "completion": 2000}}'
#: The mock engine's text of this has five tokens, and its prompt three.
REQUEST = {"prompt": "one two three", "temperature": 0, "metadata": {"mock": {"tokens": 5}}}


@pytest.fixture
def env(request: pytest.FixtureRequest, stack_env: Callable[..., Environment]) -> Iterator[Environment]:
    kind = getattr(request, "param", "rabbitmq")
    env = stack_env(kind, TEXTGEN_PRICES=PRICES, TEXTGEN_LEASE_S=1, TEXTGEN_WEBHOOK_ALLOW="127.0.0.0/8")
    with application(env):
        yield env


on_both = pytest.mark.parametrize("env", ["rabbitmq", "valkey"], indirect=True)


@pytest.fixture
def first(env: Environment) -> Record:
    """A request that has completed by itself; no worker runs."""
    record = submit()
    purge()
    run(record)
    ended(record)
    assert held() == 0
    return ended(record)


def run(record: Record) -> None:
    """An attempt at a task, in this process."""
    from textgen import attempt, tasks
    from textgen.messages import Delivery
    from textgen.store import open_store

    control = open_store().control(record.task_id)
    assert control is not None
    worker = tasks._worker("here")
    attempt.run(Delivery(record, control.terms), record.task_id, worker)
    worker.settle(record.task_id)


def purge() -> None:
    """Take the messages away that nobody is to receive."""
    from textgen.celery import app
    from textgen.settings import get_settings

    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge(get_settings().queue)


def submit(owner: str = "default", **more: Any) -> Record:
    from textgen import client
    from textgen.requests import parse_request

    return client.submit(parse_request(REQUEST | more), caller=Caller(owner))


def ended(record: Record, timeout_s: float = 20) -> Record:
    from textgen import client

    record = client.wait(record.task_id, timeout_s)
    assert record.status.is_terminal
    return record


def held() -> int:
    from textgen.store import open_store

    return int(open_store().client.hlen(keys.HELD))


def check(record: Record, first: Record) -> None:
    """A task that cost nothing has the first one's text, in its record and in its log."""
    from textgen import client
    from textgen.store import open_store

    assert (record.status, record.cached, record.error) == (Status.COMPLETED, True, None)
    assert record.result == first.result
    assert (record.finish_reason, record.model, record.engine) == ("stop", "mock", "mock")
    assert record.usage.as_dict() == Usage(0, 0, 0.0).as_dict()
    events = list(client.stream(record.task_id))
    states = [event.data["status"] for event in events if event and event.type == "state"]
    assert states == ["PENDING", "PROCESSING", "COMPLETED"]
    assert "".join(event.data["text"] for event in events if event and event.type == "chunk") == first.result
    assert not open_store().is_scheduled(record.task_id)


@on_both
def test_a_hit_completes_at_the_submit_though_no_worker_runs(env: Environment, first: Record) -> None:
    from textgen import client
    from textgen.celery import app

    record = submit(metadata={"other": "metadata"}, priority=9)
    check(record, first)
    assert client.get(record.task_id) == record
    assert app.AsyncResult(record.task_id).get(timeout=5) == first.result
    assert set(client.overview().queues.values()) == {0}


def test_a_hit_is_billed_as_a_request_that_used_nothing(env: Environment, first: Record) -> None:
    from textgen import client

    submit()
    assert held() == 0
    [row] = client.usage(client.today(), client.today())
    assert (row.requests, row.prompt_tokens, row.completion_tokens) == (2, 3, 5)
    assert row.as_dict()["cost_usd"] == pytest.approx(0.013)


def test_hits_use_no_budget_and_count_as_requests(
    env: Environment, first: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textgen.errors import LimitExceeded
    from textgen.settings import get_settings

    monkeypatch.setenv("TEXTGEN_LIMIT_TOKENS_PER_DAY", "300")
    monkeypatch.setenv("TEXTGEN_LIMIT_REQUESTS_PER_MINUTE", "5")
    get_settings.cache_clear()
    for _ in range(5):
        check(submit(), first)
    with pytest.raises(LimitExceeded, match="requests per minute"):
        submit()


def test_a_hit_does_not_wait_for_its_owner_s_share(
    env: Environment,
    first: Record,
    start_worker: Callable[..., WorkerProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from textgen.settings import get_settings

    monkeypatch.setenv("TEXTGEN_OWNER_SHARE", "1")
    get_settings.cache_clear()
    others = [submit(prompt=prompt) for prompt in ("in the lane", "waits")]
    assert (submit().status, submit().result) == (Status.COMPLETED, first.result)
    start_worker(env | {"TEXTGEN_OWNER_SHARE": "1"}).wait_ready()
    assert {ended(record).status for record in others} == {Status.COMPLETED}
    wait_until(lambda: not held(), 10, "all is settled")


@pytest.mark.parametrize("more", [{"cache": False}, {"seed": 1}, {"temperature": 0.5}, {"prompt": "four"}])
def test_what_is_not_the_same_is_no_hit(
    env: Environment, first: Record, start_worker: Callable[..., WorkerProcess], more: dict[str, Any]
) -> None:
    record = submit(**more)
    assert record.status == Status.PENDING
    start_worker(env).wait_ready()
    assert not ended(record).cached


def test_a_result_of_a_request_that_may_not_be_cached_is_not_kept(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker(env).wait_ready()
    ended(submit(cache=False))
    assert not ended(submit()).cached


def test_what_failed_or_was_cancelled_is_not_kept(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen import client
    from textgen.store import open_store

    start_worker(env).wait_ready()
    assert ended(submit(metadata={"mock": {"failure": "permanent"}})).status == Status.FAILED
    slow = submit(metadata={"mock": {"tokens": 600, "delay_s": 0.05}}, max_tokens=600)
    wait_until(lambda: client.get(slow.task_id).status == Status.PROCESSING, 10, "it runs")
    client.cancel(slow.task_id)
    wait_until(lambda: not open_store().client.keys("cache:*lead*"), 10, "the lead is given up")
    assert open_store().client.keys("cache:*") == []


def test_owners_share_results_only_where_that_is_set(
    env: Environment,
    first: Record,
    start_worker: Callable[..., WorkerProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from textgen.settings import get_settings

    assert submit("bob").status == Status.PENDING
    monkeypatch.setenv("TEXTGEN_CACHE_SHARED", "true")
    get_settings.cache_clear()
    start_worker(env | {"TEXTGEN_CACHE_SHARED": "true"}).wait_ready()
    assert not ended(submit("ann", seed=3)).cached
    cached = ended(submit("cat", seed=3))
    check(submit("dan", seed=3), cached)


@on_both
def test_a_delayed_task_looks_when_it_runs(
    env: Environment, first: Record, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen import client
    from textgen.tasks import generate

    later = generate.apply_async((), REQUEST, countdown=1).id
    assert client.get(later).status == Status.PENDING
    start_worker(env).wait_ready()
    check(ended(client.get(later)), first)


def test_a_chain_goes_on_behind_a_hit(
    env: Environment, first: Record, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen.tasks import generate

    start_worker(env).wait_ready()
    for _ in range(2):
        chain = generate.s(**REQUEST) | generate.s(seed=1) | generate.s(seed=2)
        result = chain.delay()
        assert result.get(timeout=20)
        assert result.parent.get(timeout=5)
        assert result.parent.parent.get(timeout=5) == first.result


def test_a_submitter_that_dies_before_it_has_answered_leaves_that_to_a_worker(
    env: Environment,
    first: Record,
    start_worker: Callable[..., WorkerProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given a task that was recorded, claimed or not, by a process that is gone."""
    from textgen import client
    from textgen.store import open_store

    class Gone(BaseException):
        pass

    found = []
    for move, expected in (("claim", 1), ("append", 2), ("move", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(type(open_store()), move, lambda *_, **__: (_ for _ in ()).throw(Gone))
            with pytest.raises(Gone):
                submit(metadata={"at": move})
        newest = client.recent(1)[0]
        assert not newest.status.is_terminal
        open_store().schedule(newest.task_id, 0)
        found.append((newest, expected))
    start_worker(env).wait_ready()
    for record, attempts in found:
        done = ended(record)
        assert (done.result, done.cached, done.attempt) == (first.result, True, attempts)


def test_where_the_hit_cannot_be_carried_out_the_task_is_published(
    env: Environment,
    first: Record,
    start_worker: Callable[..., WorkerProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from textgen.errors import StoreUnavailable
    from textgen.store import open_store

    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("no")

    with monkeypatch.context() as patch:
        patch.setattr(type(open_store()), "claim", away)
        record = submit()
    assert record.status == Status.PENDING
    start_worker(env).wait_ready()
    check(ended(record), first)


def test_clearing_makes_the_next_request_run(
    env: Environment, first: Record, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen.client import TextGenerationProducer, clear_cache

    with TextGenerationProducer() as producer:
        assert producer.clear_cache() == 1
    assert clear_cache() == 0
    record = submit()
    assert record.status == Status.PENDING
    start_worker(env).wait_ready()
    assert not ended(record).cached


def test_over_http_a_hit_is_accepted_told_and_repeated_like_any_task(
    env: Environment,
    first: Record,
    start_web: Callable[..., WebProcess],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    with httpx.Client(base_url=start_web(env).url, timeout=30) as http:
        answer = http.post("/v1/tasks", json=REQUEST)
        assert answer.status_code == 202
        assert (answer.json()["status"], answer.json()["cached"]) == ("COMPLETED", True)
        assert http.get(answer.headers["Location"]).json() == answer.json()
        assert http.post("/v1/tasks?stream=text", json=REQUEST).text == first.result
        waited = http.post("/v1/tasks", json=REQUEST, headers={"Prefer": "wait=5"})
        assert (waited.status_code, waited.json()["result"]) == (200, first.result)
        keyed = [http.post("/v1/tasks", json=REQUEST, headers={"Idempotency-Key": "one"}) for _ in range(2)]
        assert keyed[0].json() == keyed[1].json()
        assert http.get(keyed[0].headers["Location"]).json()["cached"] is True
        assert "cached" in http.get("/v1/tasks?status=COMPLETED").text
        with Receiver() as receiver:
            http.post("/v1/tasks", json=REQUEST | {"webhook": {"url": receiver.url}})
            start_worker(env).wait_ready()
            [told] = receiver.wait_for(1)
        assert b'"cached":true' in told.body.replace(b" ", b"")
        assert http.delete("/v1/cache").json() == {"cleared": 1}
        assert http.post("/v1/tasks", json=REQUEST).json()["status"] == "PENDING"
