"""Requests that are the same and under way at once: one is generated, and all get its text as it comes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.application import application
from tests.environment import Environment, new_folder
from tests.faults.ledger import LEDGER
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from textgen.engines.base import Chunk
from textgen.lifecycle import Record, Status
from textgen.responses import events_of

#: What a task is asked; its metadata say how it goes, and do not count.
PROMPT = {"prompt": "one two three", "seed": 7, "max_tokens": 2000}
#: A text that takes about three seconds, and one that takes as long as it is let.
STEADY, ENDLESS = {"tokens": 60, "delay_s": 0.05}, {"tokens": 2000, "delay_s": 0.05}
LEASE_S = 2


@pytest.fixture
def env(request: pytest.FixtureRequest, stack_env: Callable[..., Environment]) -> Iterator[Environment]:
    """A stack whose engine writes down what it generates."""
    folder = new_folder("plug")
    information = folder / "counted-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: counted\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[textgen.engines]\nledger = tests.faults.ledger:LedgerEngine\n"
    )
    env = stack_env(
        getattr(request, "param", "rabbitmq"),
        TEXTGEN_ENGINE="ledger",
        TEXTGEN_LEASE_S=LEASE_S,
        TEXTGEN_MAX_ATTEMPTS=3,
        PYTHONPATH=os.pathsep.join([str(folder), os.getcwd()]),
        **{LEDGER: str(folder / "ledger.jsonl")},
    )
    (folder / "ledger.jsonl").touch()
    with application(env):
        yield env


on_both = pytest.mark.parametrize("env", ["rabbitmq", "valkey"], indirect=True)


def runs(env: Environment) -> list[str]:
    """The tasks that the engine was asked for, in order."""
    with open(env[LEDGER]) as ledger:
        lines = [json.loads(line) for line in ledger]
    return [line["id"] for line in lines if line["step"] == "begin"]


def submit(mock: dict[str, Any] | None = None, **more: Any) -> str:
    from textgen import client
    from textgen.requests import parse_request

    return client.submit(parse_request(PROMPT | {"metadata": {"mock": mock or STEADY}} | more)).task_id


def lead(mock: dict[str, Any] | None = None) -> str:
    """Submit a task, and wait until it writes."""
    task_id = submit(mock or STEADY)
    wait_until(lambda: tokens(task_id) > 2, 20, "it writes")
    return task_id


def follow(number: int = 3, mock: dict[str, Any] | None = None) -> list[str]:
    """Submit tasks, and wait until all of them get the text of another."""
    ids = [submit(mock or STEADY) for _ in range(number)]
    wait_until(lambda: all(is_told(task_id) for task_id in ids), 20, "they follow")
    return ids


def tokens(task_id: str) -> int:
    from textgen.store import open_store

    control = open_store().control(task_id)
    return control.tokens if control else 0


def is_told(task_id: str) -> bool:
    from textgen.store import log, open_store

    return any(event.type == "chunk" for event in log.read(open_store(), task_id))


def ended(task_id: str, timeout_s: float = 40) -> Record:
    from textgen import client

    record = client.wait(task_id, timeout_s)
    assert record.status.is_terminal
    check_stream(record)
    return record


def check_stream(record: Record) -> None:
    """The text that is not void in the log is that of the record."""
    from textgen.store import log, open_store

    text = ""
    for event in log.read(open_store(), record.task_id):
        if event.type == "reset":
            text = ""
        elif event.type == "chunk":
            text += event.data["text"]
    assert text == (record.result or "")


def check_all(ids: list[str], writers: int = 1) -> list[Record]:
    """All completed with one text, which `writers` of them wrote themselves."""
    records = [ended(task_id) for task_id in ids]
    assert {record.status for record in records} == {Status.COMPLETED.value}
    assert len({record.result for record in records}) == 1
    assert sum(not record.cached for record in records) == writers
    for record in records:
        assert record.usage is not None
        assert (record.usage.completion_tokens == 0) is record.cached
        assert record.usage.cost_usd == (0.0 if record.cached else None)
    return records


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_fifty_equal_requests_at_once_are_generated_once_and_all_stream_it(
    env: Environment,
    pool: str,
    start_worker: Callable[..., WorkerProcess],
    start_web: Callable[..., WebProcess],
) -> None:
    web = start_web(env)
    for _ in range(2):
        start_worker(env | {"TEXTGEN_LEASE_S": "8"}, pool, 4).wait_ready()
    body = PROMPT | {"metadata": {"mock": STEADY}}

    def ask(_: int) -> tuple[dict[str, Any], str, int]:
        with httpx.stream("POST", f"{web.url}/v1/tasks?stream=sse", json=body, timeout=120) as answer:
            told = list(events_of(answer))
        text, chunks = "", 0
        for event in told:
            text = "" if event.kind == "reset" else text + event.data.get("text", "")
            chunks += event.kind == "chunk"
        return told[-1].data, text, chunks

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(ask, range(50)))
    assert {record["status"] for record, _, _ in answers} == {"COMPLETED"}
    assert {text for _, text, _ in answers} == {record["result"] for record, _, _ in answers}
    assert len({text for _, text, _ in answers}) == 1
    assert sum(not record["cached"] for record, _, _ in answers) == 1
    assert sum(chunks > 1 for _, _, chunks in answers) > 1
    assert len(runs(env)) == 1


@on_both
def test_followers_hold_no_slot(env: Environment, start_worker: Callable[..., WorkerProcess]) -> None:
    """Given a worker of two slots, of which one leads three others."""
    start_worker(env, "threads", 2).wait_ready()
    leader = lead(ENDLESS)
    followers = follow(3, ENDLESS)
    other = submit({"tokens": 2}, seed=8)
    assert ended(other).status == Status.COMPLETED
    from textgen import client

    assert {client.get(task_id).status for task_id in [leader, *followers]} == {Status.PROCESSING.value}


def test_what_may_not_be_cached_is_generated_beside_the_same(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker(env, "threads", 4).wait_ready()
    ids = [lead(), submit(cache=False)]
    check_all(ids, writers=2)
    assert len(runs(env)) == 2


@on_both
@pytest.mark.parametrize("failure", ["transient", "permanent", "raises"])
def test_a_leader_that_fails_leaves_its_followers_to_the_next(
    env: Environment, failure: str, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker(env, "threads", 4).wait_ready()
    leader = lead({**STEADY, "tokens": 80, "failure": failure, "after": 60, "times": 1})
    followers = follow()
    records = check_all(followers)
    assert {record.failures for record in records} == {0}
    assert len(runs(env)) == 2
    mine = ended(leader)
    if failure == "transient":
        assert (mine.status, mine.cached, mine.failures) == (Status.COMPLETED, True, 1)
    else:
        assert mine.status == Status.FAILED
        assert mine.result
    assert len(runs(env)) == 2


def test_a_leader_that_is_cancelled_keeps_its_text_and_its_followers_complete(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen import client

    start_worker(env, "threads", 4).wait_ready()
    leader = lead(ENDLESS)
    followers = follow()
    cancelled = client.cancel(leader)
    assert (cancelled.status, cancelled.cached) == (Status.CANCELLED, False)
    assert cancelled.result
    assert cancelled.usage is not None
    assert cancelled.usage.completion_tokens > 2
    check_all(followers)
    assert ended(leader) == cancelled
    assert len(runs(env)) == 2


def test_a_leader_that_hangs_is_ended_and_its_followers_complete(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker(env | {"TEXTGEN_ATTEMPT_MARGIN_S": "1"}, "threads", 4).wait_ready()
    leader = submit({"tokens": 60, "failure": "hangs", "after": 5}, attempt_timeout_s=5)
    wait_until(lambda: tokens(leader) > 2, 20, "it writes")
    followers = follow()
    check_all(followers)
    assert ended(leader).error.type == "attempt_hung"


@pytest.mark.parametrize("pool", ["threads", "prefork"])
@on_both
def test_a_worker_killed_while_it_leads_loses_nobody(
    env: Environment, pool: str, start_worker: Callable[..., WorkerProcess]
) -> None:
    dying = start_worker(env, pool, 4).wait_ready()
    leader = lead(ENDLESS)
    followers = follow(3, STEADY)
    dying.kill()
    start_worker(env, pool, 4).wait_ready()
    from textgen import client

    client.cancel(leader)
    check_all(followers)


def test_a_follower_that_is_cancelled_drops_out_alone(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen import client

    start_worker(env, "threads", 4).wait_ready()
    leader = lead()
    first, *others = follow()
    cancelled = client.cancel(first)
    assert cancelled.status == Status.CANCELLED
    assert cancelled.result
    assert cancelled.usage is None
    check_all([leader, *others])
    assert ended(first) == cancelled
    assert len(runs(env)) == 1


def test_a_follower_whose_time_is_over_fails_alone(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker(env, "threads", 4).wait_ready()
    leader = lead({**STEADY, "tokens": 100})
    limits = ({"attempt_timeout_s": 1}, "attempt_timeout"), ({"deadline_s": 2}, "deadline")
    ids = {submit({}, **limit): error for limit, error in limits}
    for task_id, error in ids.items():
        record = ended(task_id)
        assert record.error is not None
        assert record.error.type == error
        assert record.result
    check_all([leader])


def test_a_worker_that_stops_hands_its_followers_over(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    stopping = start_worker(env | {"TEXTGEN_SHUTDOWN_GRACE_S": "0"}, "threads", 4).wait_ready()
    ids = [lead({**STEADY, "tokens": 400}), *follow()]
    start_worker(env, "threads", 4).wait_ready()
    stopping.stop()
    records = check_all(ids)
    assert {record.failures for record in records} == {0}
    assert len(runs(env)) > 1


#: Kills the worker that is about to keep a result, once.
DIES = """
import os, wrapt

@wrapt.when_imported("textgen.store.cache")
def dies(module):
    put = module.put
    def once(*given):
        try:
            os.close(os.open({mark!r}, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return put(*given)
        os.kill(os.getpid(), 9)
    module.put = once
"""


def test_a_worker_killed_between_the_end_of_the_leader_and_its_followers_loses_nobody(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    folder = new_folder("dies")
    (folder / "sitecustomize.py").write_text(DIES.format(mark=str(folder / "done")))
    path = os.pathsep.join([str(folder), env["PYTHONPATH"]])
    dying = start_worker(env | {"PYTHONPATH": path}, "threads", 4).wait_ready()
    leader, followers = lead({**STEADY, "tokens": 100}), follow()
    wait_until(lambda: not dying.is_alive, 20, "it has died")
    start_worker(env, "threads", 4).wait_ready()
    first = ended(leader)
    assert (first.status, first.cached) == (Status.COMPLETED, False)
    check_all(followers)
    assert len(runs(env)) == 2


def test_a_second_message_of_the_leader_takes_no_lead_away(env: Environment) -> None:
    """Given two messages of one task, of which the one that came first is the slower."""
    from textgen import caching
    from textgen.messages import Delivery
    from textgen.settings import get_settings
    from textgen.store import open_store
    from textgen.store.cache import Role

    store, settings, task_id = open_store(), get_settings(), submit()
    control = store.control(task_id)
    delivery = Delivery(store.get(task_id), control.terms)
    slow, quick = (caching.enter(store, settings, delivery) for _ in range(2))
    store.claim(delivery.record, delivery.terms, "quick", "worker")
    caching.leave(store, slow, task_id)
    assert (slow.role, quick.role) == (Role.LEAD, Role.LEADS)
    other = submit()
    waits = caching.enter(store, settings, Delivery(store.get(other), store.control(other).terms))
    assert waits.role == Role.FOLLOW


def test_a_task_that_waits_for_another_is_known_to_be_parked(env: Environment) -> None:
    from textgen import attempt, caching
    from textgen.messages import Delivery
    from textgen.settings import get_settings
    from textgen.store import open_store

    store, settings = open_store(), get_settings()
    leader, other = (Delivery(store.get(one), store.control(one).terms) for one in (submit(), submit()))
    caching.enter(store, settings, leader)
    parked = attempt.run(other, "token", SimpleNamespace(store=store, settings=settings))
    assert isinstance(parked, attempt.Parked)
    until_ms = store.control(other.record.task_id).parked_ms
    assert abs(until_ms - store.now_ms() - parked.wait_s * 1000) < 1000


def leading(number: int = 1) -> SimpleNamespace:
    """The followers of an attempt in this process, so many so far; their ids, and who of them was settled."""
    from textgen import caching
    from textgen.draft import Draft, Writer
    from textgen.followers import Followers
    from textgen.heartbeat import Heartbeat, Running
    from textgen.messages import Delivery
    from textgen.settings import get_settings
    from textgen.store import open_store

    store, settings, settled = open_store(), get_settings(), []
    ids = [submit() for _ in range(1 + number)]
    tasks = [Delivery(store.get(task_id), store.control(task_id).terms) for task_id in ids]
    seat, *_ = [caching.enter(store, settings, one) for one in tasks]
    leader, ids = tasks[0], ids[1:]
    claim = store.claim(leader.record, leader.terms, "token", "worker")
    draft = Draft(Running(claim.record, "token", 60.0), leader.terms, Writer(store), "worker")
    followers = Followers(seat.place, draft, Heartbeat(store), settings, settled.append)
    followers.beat()
    assert {store.get(task_id).status for task_id in ids} == {Status.PROCESSING.value}
    return SimpleNamespace(followers=followers, task_id=ids[0], ids=ids, settled=settled)


@pytest.fixture
def led(env: Environment) -> SimpleNamespace:
    return leading()


@pytest.fixture
def led_three(env: Environment) -> SimpleNamespace:
    return leading(3)


def completed(led: SimpleNamespace) -> Record:
    """The record of the leader, once it has ended with a text."""
    from textgen.store import open_store

    running = led.followers.draft.running
    ended = running.record.but(status=Status.COMPLETED, result="one two", finish_reason="stop")
    record = open_store().move(ended, token=running.token).record
    assert record is not None
    return record


def statuses(led: SimpleNamespace) -> set[str]:
    from textgen.store import open_store

    return {open_store().get(task_id).status for task_id in led.ids}


def pass_time(store: Any) -> None:
    """Return when 50 ms have passed for Redis."""
    until = store.now_ms() + 50
    wait_until(lambda: store.now_ms() >= until, 5, "time passes")


def test_all_followers_complete_before_the_first_is_settled(led_three: SimpleNamespace) -> None:
    at_settling: dict[str, set[str]] = {}
    led_three.followers.settle = lambda task_id: at_settling.update({task_id: statuses(led_three)})
    led_three.followers.complete(completed(led_three))
    assert at_settling == {task_id: {Status.COMPLETED.value} for task_id in led_three.ids}


def test_who_takes_long_to_settle_is_left_to_the_janitor(
    led_three: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textgen import followers

    now = [0.0]

    def settle(task_id: str) -> None:
        led_three.settled.append(task_id)
        now[0] += followers.SETTLE_S

    monkeypatch.setattr(followers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    led_three.followers.settle = settle
    led_three.followers.complete(completed(led_three))
    assert statuses(led_three) == {Status.COMPLETED.value}
    [settled] = led_three.settled
    assert settled in led_three.ids


@pytest.mark.parametrize("ends", ["complete", "close"])
def test_followers_whose_turn_to_end_has_not_come_keep_their_leases(
    led_three: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    from textgen import followers

    store, leases = led_three.followers.store, []
    move = store.move

    def slow(record: Record, **given: Any) -> Any:
        leases.append(store.control(record.task_id).lease_ms)
        pass_time(store)
        return move(record, **given)

    record = completed(led_three)
    monkeypatch.setattr(followers, "LOOK", 1)
    monkeypatch.setattr(store, "move", slow)
    if ends == "complete":
        led_three.followers.complete(record)
    else:
        led_three.followers.close()
    assert leases[0] + 50 <= leases[1] <= leases[2] - 50


def test_followers_keep_their_leases_while_another_is_settled(led_three: SimpleNamespace) -> None:
    from textgen import client

    store, (cancelled, other, _), leases = led_three.followers.store, led_three.ids, []

    def settle(task_id: str) -> None:
        for _ in range(2):
            leases.append(store.control(other).lease_ms)
            pass_time(store)
            led_three.followers.beat()

    led_three.followers.settle = settle
    client.cancel(cancelled)
    led_three.followers.draft.add(Chunk("one "))
    led_three.followers.tell()
    early, late = leases
    assert late >= early + 50


@pytest.mark.parametrize("ends", ["complete", "close"])
def test_an_attempt_that_ends_its_followers_is_not_given_up(
    led_three: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Given a child process, and an attempt that has ended: whoever renewed its lease would be fenced."""
    from textgen import heartbeat

    monkeypatch.setattr(heartbeat, "NOTICE_S", 0.0)
    given_up: list[str] = []
    store, running = led_three.followers.store, led_three.followers.draft.running
    beating = heartbeat.Heartbeat(store, abandon=lambda: given_up.append("given up"))
    move = store.move

    def beats(record: Record, **given: Any) -> Any:
        beating.beat([running])
        beating.beat([running])
        return move(record, **given)

    record = completed(led_three)
    monkeypatch.setattr(store, "move", beats)
    if ends == "complete":
        led_three.followers.complete(record)
    else:
        led_three.followers.close()
    assert given_up == []


def test_nobody_settles_a_follower_at_a_beat(led: SimpleNamespace) -> None:
    from textgen import client

    client.cancel(led.task_id)
    led.followers.beat()
    assert not led.followers._followers
    assert led.settled == []


@pytest.mark.parametrize("is_beat", [True, False])
def test_a_follower_whose_deadline_has_passed_is_ended_at_once(led: SimpleNamespace, is_beat: bool) -> None:
    from textgen.store import keys, open_store

    open_store().client.hset(keys.state(led.task_id), "deadline", 1)
    led.followers.draft.add(Chunk("one "))
    if is_beat:
        led.followers.beat()
    else:
        led.followers.tell()
    record = open_store().get(led.task_id)
    assert record is not None
    assert record.error is not None
    assert (record.status, record.error.type) == (Status.FAILED, "deadline")
    assert not led.followers._followers
    assert led.settled == ([] if is_beat else [led.task_id])


def test_a_task_that_is_put_off_leads_no_longer(env: Environment) -> None:
    """Given a task that the store does not know, and an engine that may not be called now."""
    from textgen import attempt, caching
    from textgen.gate import Wait
    from textgen.lifecycle import new_task_id
    from textgen.messages import Delivery
    from textgen.settings import get_settings
    from textgen.store import open_store
    from textgen.store.cache import Role

    store, settings, task_id = open_store(), get_settings(), submit()
    known = Delivery(store.get(task_id), store.control(task_id).terms)
    unknown = Delivery(known.record.but(task_id=new_task_id()), known.terms)
    gate = SimpleNamespace(ask=lambda record, permit_id: Wait(5.0))
    worker = SimpleNamespace(store=store, settings=settings, gate=gate, name="worker")
    parked = attempt.run(unknown, "token", worker)
    assert isinstance(parked, attempt.Parked)
    assert caching.enter(store, settings, known).role is Role.LEAD


@on_both
def test_a_chain_behind_a_follower_goes_on(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen.tasks import generate

    start_worker(env, "threads", 4).wait_ready()
    leader = lead()
    asked = PROMPT | {"metadata": {"mock": STEADY}}
    result = (generate.s(**asked) | generate.s(metadata={"mock": {"tokens": 2}})).delay()
    assert result.get(timeout=30)
    assert result.parent.get(timeout=5) == ended(leader).result
    assert len(runs(env)) == 2


def test_all_is_settled_and_only_the_generation_is_billed(
    env: Environment, start_worker: Callable[..., WorkerProcess]
) -> None:
    from textgen import client
    from textgen.store import keys, open_store

    start_worker(env, "threads", 4).wait_ready()
    check_all([lead(), *follow()])
    wait_until(lambda: not open_store().client.hlen(keys.HELD), 20, "all is settled")
    [row] = client.usage(client.today(), client.today())
    assert (row.requests, row.prompt_tokens, row.completion_tokens) == (4, 3, 60)
    wait_until(lambda: set(client.overview().queues.values()) == {0}, 20, "the messages are gone")
