"""Cached results in Redis: how long they are kept, and how many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.processes import wait_until
from tests.services import PrivateRedis
from textgen.settings import Settings
from textgen.store import Store, cache, keys
from textgen.store.cache import Place, Role, Stored
from textgen.store.connection import connect

ANN, BOB = Place("ann", "d1"), Place("bob", "d1")
LEASE_MS = 10_000
#: Bytes of a stored result besides its text.
ENVELOPE = len('{"text":"","finish_reason":"stop","model":"m","engine":"mock","usage":null}')


@pytest.fixture
def store(redis_server: PrivateRedis) -> Iterator[Store]:
    client = connect(Settings(redis_url=redis_server.url_of(redis_server.new_database())))
    yield Store(client, 1)
    client.close()


def stored(text: str = "text") -> Stored:
    return Stored(text, "stop", "m", "mock")


def put(store: Store, place: Place, text: str = "text", most: int = 100, size: int = 10_000) -> bool:
    return cache.put(store, place, stored(text), 60, most, size)


def test_a_result_is_found_by_its_owner_as_it_was_put(store: Store) -> None:
    result = Stored('Größe "1"\n🙂', "length", "m", "mock", {"prompt_tokens": 1, "completion_tokens": 2})
    assert cache.put(store, ANN, result, 60, 10, 10_000)
    assert cache.find(store, ANN) == result
    assert cache.find(store, BOB) is None


def test_a_result_is_gone_when_its_time_is_over(store: Store) -> None:
    cache.put(store, ANN, stored(), 1, 10, 10_000)
    wait_until(lambda: cache.find(store, ANN) is None, 5, "it expires")
    put(store, Place("ann", "d2"))
    assert store.client.zcard(keys.of_cache("ann")[0]) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 600)), min_size=1, max_size=30))
def test_the_bounds_hold_whatever_is_put(store: Store, puts: list[tuple[str, int]]) -> None:
    store.client.flushdb()
    index, sizes, results, *_ = keys.of_cache("ann")
    for digest, length in puts:
        is_kept = put(store, Place("ann", digest), "x" * length, most=4, size=600)
        kept = {
            name.removeprefix(results): store.client.strlen(name) for name in store.client.keys(f"{results}*")
        }
        assert is_kept is (length <= 600 - ENVELOPE) is (digest in kept)
        assert set(store.client.zrange(index, 0, -1)) == set(kept)
        assert int(store.client.hget(sizes, "#") or 0) == sum(kept.values()) <= 600
        assert len(kept) <= 4


def test_the_oldest_make_room(store: Store) -> None:
    for digest in ("one", "two", "one", "three"):
        before = store.client.time()
        put(store, Place("ann", digest), most=2)
        wait_until(lambda then=before: store.client.time() > (then[0], then[1] + 2000), 5, "time passes")
    found = [digest for digest in ("one", "two", "three") if cache.find(store, Place("ann", digest))]
    assert found == ["one", "three"]


def test_clearing_deletes_all_of_an_owner_and_nothing_of_another(store: Store) -> None:
    for number in range(cache.PAGE + 5):
        put(store, Place("ann", str(number)), most=5000, size=10**9)
    put(store, BOB)
    assert cache.clear(store, "ann") == cache.PAGE + 5
    assert cache.clear(store, "ann") == 0
    assert [name for name in store.client.keys("cache:{ann}:*") if "result" in name] == []
    assert cache.find(store, BOB) == stored()


def test_every_key_expires_and_stands_in_the_slot_of_its_owner(store: Store) -> None:
    put(store, ANN)
    other = Place("ann", "d2")
    for task_id in ("one", "two"):
        cache.enter(store, other, task_id, LEASE_MS, True)
    names = store.client.keys("*")
    assert len(names) == 5
    assert all(name.startswith("cache:{ann}:") and store.client.pttl(name) > 0 for name in names)


def test_the_first_leads_and_others_follow_until_there_is_a_result(store: Store) -> None:
    def enter(task_id: str, can_be_adopted: bool = True) -> Role:
        return cache.enter(store, ANN, task_id, LEASE_MS, can_be_adopted).role

    assert [enter("one"), enter("two"), enter("one")] == [Role.LEAD, Role.FOLLOW, Role.LEADS]
    assert enter("chained", can_be_adopted=False) is Role.FOLLOW
    assert enter("three") is Role.FOLLOW
    assert cache.attend(store, ANN, "one", LEASE_MS, 1) == (True, ["two"])
    assert cache.attend(store, ANN, "one", LEASE_MS, 0) == (True, [])
    assert cache.attend(store, ANN, "one", LEASE_MS, 9) == (True, ["three"])
    assert cache.attend(store, ANN, "two", LEASE_MS, 9) == (False, [])
    put(store, ANN)
    assert cache.enter(store, ANN, "four", LEASE_MS, True) == cache.Entrance(Role.HIT, stored())


def test_a_lead_passes_on_when_it_is_given_up_or_runs_out(store: Store) -> None:
    cache.enter(store, ANN, "one", LEASE_MS, True)
    cache.leave(store, ANN, "two")
    assert cache.enter(store, ANN, "two", LEASE_MS, True).role is Role.FOLLOW
    cache.leave(store, ANN, "one")
    assert cache.enter(store, ANN, "two", 100, True).role is Role.LEAD
    wait_until(
        lambda: cache.enter(store, ANN, "three", LEASE_MS, True).role is Role.LEAD, 5, "the lead runs out"
    )
