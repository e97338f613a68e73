"""Permits in Redis: no window sees more than the limit, and what one call learns holds for all."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

from tests.processes import wait_until
from tests.services import PrivateRedis
from textgen.lifecycle import new_task_id
from textgen.settings import Settings
from textgen.store import Store, circuits, keys, permits
from textgen.store.connection import connect
from textgen.store.permits import Candidate, Granted, Refused, Terms, Told

LASTING = Terms(lost_s=5, reset_s=0.3, try_s=0.5)
WINDOW_MS = 300


@pytest.fixture
def store(redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    settings = Settings(redis_url=redis_server.url_of(redis_server.new_database()))
    client, raw = connect(settings), connect(settings, decodes=False)
    monkeypatch.setattr(circuits, "_client", lambda pid: raw)
    yield Store(client, 8.0)
    client.close()
    raw.close()


def ask(store: Store, *candidates: Candidate, task: str = "", tokens: int = 10, **lasting: float) -> Any:
    terms = Terms(**{name: lasting.get(name, getattr(LASTING, name)) for name in LASTING.__slots__})
    return permits.ask(store, new_task_id(), task or new_task_id(), tokens, terms, candidates)


def limited(requests: int = 0, tokens: int = 0, account: str = "a", has_circuit: bool = False) -> Candidate:
    return Candidate(account, has_circuit, requests, tokens, WINDOW_MS)


REMOTE = Candidate("a", has_circuit=True)


def test_no_window_of_a_provider_sees_more_than_the_limit(store: Store) -> None:
    arrivals: list[float] = []
    until = time.monotonic() + 3

    def work(_: int) -> None:
        task = ""
        while time.monotonic() < until:
            task = task or new_task_id()
            answer = ask(store, limited(requests=7), task=task)
            if isinstance(answer, Granted):
                task = ""
                time.sleep(random.uniform(0, 0.15))  # the way there
                arrivals.append(time.monotonic())
                time.sleep(random.uniform(0, 0.05))  # and until the answer begins
                permits.answered(store, answer)
            else:
                time.sleep(random.uniform(0, 0.02))

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, range(12)))
    arrivals.sort()
    for first, eighth in zip(arrivals, arrivals[7:], strict=False):
        assert eighth - first >= WINDOW_MS / 1000
    assert len(arrivals) > 7 * 3 / 0.5 * 0.6, "and it is made use of"


def test_tokens_are_limited_as_calls_are_and_one_that_is_too_large_goes_alone(store: Store) -> None:
    first = ask(store, limited(tokens=100), tokens=60)
    assert isinstance(ask(store, limited(tokens=100), tokens=41), Refused)
    small = ask(store, limited(tokens=100), tokens=40)
    for permit in (first, small):
        permits.answered(store, permit)
    assert isinstance(ask(store, limited(tokens=100), tokens=1), Refused)
    wait_until(lambda: isinstance(ask(store, limited(tokens=100), tokens=500), Granted), 5, "it may go alone")


def test_a_permit_whose_worker_died_counts_no_longer_than_a_bounded_time(store: Store) -> None:
    assert isinstance(ask(store, limited(1), lost_s=0.3), Granted)
    assert isinstance(ask(store, limited(1)), Refused)
    wait_until(lambda: isinstance(ask(store, limited(1)), Granted), 5, "it is given up for lost")


def test_a_permit_given_back_leaves_its_room(store: Store) -> None:
    permits.give_back(store, ask(store, limited(1)))
    assert isinstance(ask(store, limited(1)), Granted)


def test_an_engine_at_its_limit_is_passed_over_and_the_shortest_wait_counts(store: Store) -> None:
    engines = [limited(1), limited(1, account="b")]
    ask(store, engines[0])
    second = ask(store, *engines)
    assert (second.place, second.account, second.passed_over) == (1, "b", ("at its limit",))
    permits.answered(store, second)
    third = ask(store, *engines)
    assert third.reasons == ("at its limit", "at its limit")
    assert 0 < third.wait_s <= (WINDOW_MS + 1) / 1000, "the clock is rounded down"
    assert ask(store, *engines, Candidate("")).place == 2


def test_those_who_wait_are_told_different_times_and_come_in_their_order(store: Store) -> None:
    permits.answered(store, ask(store, limited(1)))
    waits = [ask(store, limited(1), task=str(n)).wait_s for n in range(4)]
    steps = [later - sooner for sooner, later in pairwise(waits)]
    assert all(WINDOW_MS / 1000 * 0.8 < step < WINDOW_MS / 1000 * 1.2 for step in steps)
    again = ask(store, limited(1), task="3").wait_s
    assert again <= waits[3], "whoever asks too early keeps the place"
    time.sleep(waits[0] + 0.02)
    assert isinstance(ask(store, limited(1), task="new"), Refused), "room is kept for who was told to come"
    assert isinstance(ask(store, limited(1), task="0"), Granted)


def test_a_provider_that_tells_of_a_limit_of_none_is_tried_by_one_when_its_time_is_over(store: Store) -> None:
    permits.answered(store, ask(store, REMOTE), requests=Told(0, 300, 0))
    assert isinstance(ask(store, REMOTE), Refused)
    wait_until(lambda: isinstance(ask(store, REMOTE), Granted), 5, "one is let go")
    assert isinstance(ask(store, REMOTE), Refused)


def test_nobody_is_shown_less_than_nothing(store: Store) -> None:
    permits.answered(store, ask(store, REMOTE), requests=Told(3, 60_000, 5))
    first, second = ask(store, REMOTE), ask(store, REMOTE)
    permits.answered(store, first, requests=Told(0, 60_000, 5))
    permits.answered(store, second)
    assert permits.look(store, "a", 1).told == {"requests": 0}


def test_tasks_that_never_come_back_do_not_keep_others_out(store: Store) -> None:
    for answer in [ask(store, limited(4)) for _ in range(50)]:
        if isinstance(answer, Granted):
            permits.answered(store, answer)
    until, came = time.monotonic() + 2, 0
    while time.monotonic() < until:
        answer = ask(store, limited(4), task="new")
        if isinstance(answer, Granted):
            permits.answered(store, answer)
            came += 1
        else:
            time.sleep(0.01)
    assert came >= 2 * 2 / (WINDOW_MS / 1000) * 0.6, "half of the room at the least"


# What providers tell


def test_what_a_provider_says_is_left_holds_for_all_until_it_is_whole_again(store: Store) -> None:
    first, in_flight = ask(store, limited(100)), ask(store, limited(100))
    permits.answered(store, first, Told(remaining=3, reset_ms=400, limit=5))
    granted = [ask(store, limited(100), task="one") for _ in range(3)]
    assert [type(one) for one in granted] == [Granted, Granted, Refused], "one is on its way already"
    assert granted[2].wait_s <= 0.4
    permits.answered(store, in_flight, Told(remaining=2, reset_ms=400, limit=5))
    time.sleep(0.45)
    after = [type(ask(store, limited(100), task="one")) for _ in range(5)]
    assert after.count(Granted) == 3, "as many as the limit, with the two that are still on their way"


def test_an_answer_overtaken_by_a_later_one_does_not_raise_what_is_left(store: Store) -> None:
    early = ask(store, limited(100))
    time.sleep(0.005)
    late = ask(store, limited(100))
    permits.answered(store, late, Told(remaining=0, reset_ms=60_000))
    permits.answered(store, early, Told(remaining=1, reset_ms=60_000))
    assert isinstance(ask(store, limited(100)), Refused)


def test_tokens_told_are_heeded_too(store: Store) -> None:
    permits.answered(store, ask(store, limited(100)), tokens=Told(remaining=15, reset_ms=60_000, limit=1000))
    assert isinstance(ask(store, limited(100), tokens=10), Granted)
    assert isinstance(ask(store, limited(100), tokens=10), Refused)


def test_a_pause_holds_for_all_and_grows_where_the_provider_names_none(store: Store) -> None:
    permits.answered(store, ask(store, REMOTE), pause_s=0.5)
    refused = ask(store, REMOTE)
    assert (refused.reasons, refused.is_in_line) == (("paused",), False)
    assert 0.3 < refused.wait_s <= 0.5
    wait_until(lambda: isinstance(ask(store, REMOTE), Granted), 5, "the pause is over")
    waits = []
    for _ in range(3):
        [permits.answered(store, granted, pause_s=0) for granted in [ask(store, REMOTE) for _ in range(4)]]
        waits.append(ask(store, REMOTE).wait_s)
        store.client.hset(keys.PROVIDERS + "a", "pause", 0)
    assert 0.7 < waits[0] < 1.3 < waits[1] < 2.6 < waits[2] < 5.1, "several at once count as one"
    good = ask(store, REMOTE)
    assert good.is_unsteady
    permits.answered(store, good, is_well=True)
    assert not ask(store, REMOTE).is_unsteady


# Circuits


def report(is_failure: bool, is_try: bool = False) -> str:
    return circuits.report("a", Settings(breaker_failures=3), is_failure=is_failure, is_try=is_try)


def test_failures_in_a_row_open_the_circuit_and_one_try_at_a_time_closes_it(store: Store) -> None:
    assert not ask(store, REMOTE).is_unsteady
    assert [report(True), report(True), report(False), report(True), report(True)] == ["closed"] * 5
    assert ask(store, REMOTE).is_unsteady
    assert report(True) == "open"
    refused = ask(store, REMOTE)
    assert refused.reasons == ("circuit open",)
    assert 0 < refused.wait_s <= 0.3
    assert report(False) == "open", "what began before says nothing new"

    time.sleep(refused.wait_s + 0.01)
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: ask(store, REMOTE), range(20)))
    [tried] = [one for one in answers if isinstance(one, Granted)]
    assert tried.is_try
    assert report(True, is_try=True) == "open"
    permits.answered(store, tried)
    assert isinstance(ask(store, REMOTE), Refused), "it stays open for as long again"

    time.sleep(0.31)
    tried = ask(store, REMOTE)
    assert report(False, is_try=True) == "closed"
    permits.answered(store, tried)
    assert not any(ask(store, REMOTE).is_try for _ in range(5))


def test_a_try_whose_worker_died_is_followed_by_another(store: Store) -> None:
    [report(True) for _ in range(3)]
    time.sleep(0.31)
    assert ask(store, REMOTE).is_try
    assert isinstance(ask(store, REMOTE), Refused)
    wait_until(lambda: isinstance(ask(store, REMOTE), Granted), 5, "the next try")


def test_a_try_that_is_given_back_is_free_at_once(store: Store) -> None:
    [report(True) for _ in range(3)]
    time.sleep(0.31)
    permits.give_back(store, ask(store, REMOTE))
    assert ask(store, REMOTE).is_try


def test_what_is_known_can_be_looked_at_and_every_key_of_it_expires(store: Store) -> None:
    [report(True) for _ in range(3)]
    for _ in range(3):
        ask(store, limited(2, account="b"))
    permits.answered(store, ask(store, limited(9, account="c")), Told(4, 60_000, 5), pause_s=9)

    a, b, c = (permits.look(store, account, 30) for account in "abc")
    assert (a.circuit, a.failures) == ("open", 3)
    assert 28 < a.retry_s <= 30
    assert (b.circuit, b.requests, b.tokens, b.waiting, b.counts) == (
        "closed",
        2,
        20,
        1,
        {"granted": 2, "parked": 1},
    )
    assert (c.told, c.counts["throttled"]) == ({"requests": 4}, 1)
    assert 8 < c.paused_s <= 9
    names = store.client.keys("*")
    assert len(names) >= 8
    assert all(name.startswith(keys.PROVIDERS) and store.client.ttl(name) > 0 for name in names)
