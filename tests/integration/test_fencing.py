"""The store's transitions: what an attempt without the token can do, which is nothing."""

import calendar
import json
import time
from collections.abc import Iterator

import pytest
import redis

from tests.processes import wait_until
from tests.services import PrivateRedis
from textgen import outcomes
from textgen.errors import StoreUnavailable
from textgen.heartbeat import Heartbeat, Running
from textgen.lifecycle import Failure, Record, Status, Usage, new_task_id
from textgen.messages import Delivery
from textgen.prices import Price, Prices
from textgen.settings import Settings
from textgen.store import Store, keys, log, scripts
from textgen.store.answers import Claimed, Moved, Terms, Verdict
from textgen.store.connection import connect

LEASE_S = 0.2


@pytest.fixture
def store(redis_server: PrivateRedis) -> Iterator[Store]:
    client = connect(Settings(redis_url=redis_server.url_of(redis_server.new_database())))
    yield Store(client, LEASE_S)
    client.close()


@pytest.fixture
def delivery(store: Store) -> Delivery:
    """A task that was accepted, as a worker receives it."""
    submitted = store.submit(Record(new_task_id(), prompt="hello"), Terms(60_000, 0, "print"), 600)
    return Delivery(submitted.record, submitted.terms)


def claim(store: Store, delivery: Delivery, token: str, record: Record | None = None) -> Record:
    taken = store.claim(record or delivery.record, delivery.terms, token, "worker")
    assert taken.outcome is Claimed.TAKEN
    return taken.record


def take_over(store: Store, delivery: Delivery, token: str) -> Record:
    """Wait until the first attempt's lease has lapsed, note it, and claim as the second."""
    task_id = delivery.record.task_id
    wait_until(lambda: store.control(task_id).lease_ms <= store.now_ms(), 5, "the lease lapses")
    moved = outcomes.lapse(store, Settings(), store.get(task_id), store.control(task_id).rev)
    assert moved.outcome is Moved.OK
    return claim(store, delivery, token, moved.record)


def completed(record: Record, text: str) -> Record:
    return record.but(status=Status.COMPLETED, result=text, usage=Usage(1, 1), finish_reason="stop")


@pytest.mark.parametrize("chunks_of_first", [0, 1, 2])
@pytest.mark.parametrize("steps_of_second", ["claims", "writes", "completes", "fails", "waits for a retry"])
def test_a_stopped_attempt_that_goes_on_after_another_took_over_changes_nothing(
    store: Store, delivery: Delivery, chunks_of_first: int, steps_of_second: str
) -> None:
    task_id = delivery.record.task_id
    first = claim(store, delivery, "first")
    for number in range(chunks_of_first):
        assert store.append(task_id, "first", number, f"a{number}") is Verdict.OK
    second = take_over(store, delivery, "second")
    if steps_of_second != "claims":
        store.append(task_id, "second", 0, "b0")
    if steps_of_second == "completes":
        store.move(completed(second, "b0"), token="second")
    elif steps_of_second == "fails":
        store.move(outcomes.failed(second, Failure("x", "y")), token="second")
    elif steps_of_second == "waits for a retry":
        store.move(second.but(status=Status.PENDING), token="second", reason="retry")
    before = store.client.get(keys.record(task_id)), log.read(store, task_id)

    assert store.append(task_id, "first", chunks_of_first, "late") is not Verdict.OK
    assert store.renew(task_id, "first") is not Verdict.OK
    assert store.move(completed(first, "late"), token="first").outcome is not Moved.OK
    assert store.move(first.but(status=Status.PENDING), token="first").outcome is not Moved.OK

    assert (store.client.get(keys.record(task_id)), log.read(store, task_id)) == before


def test_an_attempt_that_ends_too_late_leaves_the_schedule_of_its_task(
    store: Store, delivery: Delivery
) -> None:
    task_id = delivery.record.task_id
    first = claim(store, delivery, "first")
    assert outcomes.hand_back(store, task_id, "first")
    Heartbeat(store).end(Running(first, "first", 1.0), outcomes.ATTEMPT_HUNG)
    for schedule in (keys.OUTBOX, keys.WATCH):
        assert store.client.zscore(schedule, task_id)


def test_the_text_of_the_attempt_that_completed_is_the_record(store: Store, delivery: Delivery) -> None:
    task_id = delivery.record.task_id
    claim(store, delivery, "first")
    store.append(task_id, "first", 0, "void")
    second = take_over(store, delivery, "second")
    store.append(task_id, "second", 0, "good ")
    store.append(task_id, "second", 1, "text")
    store.move(completed(second, "good text"), token="second")
    assert log.text_of(store, task_id, 2) == store.get(task_id).result == "good text"
    kinds = [event.type for event in log.read(store, task_id)]
    assert kinds.count("reset") == 1


def test_an_attempt_that_wrote_nothing_needs_no_reset(store: Store, delivery: Delivery) -> None:
    claim(store, delivery, "first")
    take_over(store, delivery, "second")
    kinds = [event.type for event in log.read(store, delivery.record.task_id)]
    assert "reset" not in kinds


def test_a_repeated_append_whose_answer_was_lost_adds_nothing(store: Store, delivery: Delivery) -> None:
    claim(store, delivery, "token")
    for _ in range(3):
        assert store.append(delivery.record.task_id, "token", 0, "once") is Verdict.OK
    assert log.text_of(store, delivery.record.task_id, 1) == "once"


def test_a_live_lease_is_never_taken_over(store: Store, delivery: Delivery) -> None:
    claim(store, delivery, "first")
    busy = store.claim(delivery.record, delivery.terms, "second", "worker")
    assert busy.outcome is Claimed.BUSY
    assert 0 < busy.wait_s <= LEASE_S
    control = store.control(delivery.record.task_id)
    moved = outcomes.lapse(store, Settings(), store.get(delivery.record.task_id), control.rev)
    assert moved.outcome is Moved.ALIVE


def test_a_terminal_record_never_changes(store: Store, delivery: Delivery) -> None:
    task_id = delivery.record.task_id
    record = claim(store, delivery, "token")
    assert store.move(completed(record, "text"), token="token").outcome is Moved.OK
    before = store.client.get(keys.record(task_id))
    assert outcomes.cancel(store, task_id).outcome is Moved.ENDED
    assert store.move(outcomes.failed(record, Failure("x", "y")), token="token").outcome is Moved.ENDED
    assert store.claim(delivery.record, delivery.terms, "again", "worker").outcome is Claimed.ENDED
    assert store.refuse(task_id) is False
    assert store.client.get(keys.record(task_id)) == before


def test_a_cancel_keeps_what_was_written_and_lets_nothing_follow(store: Store, delivery: Delivery) -> None:
    task_id = delivery.record.task_id
    record = claim(store, delivery, "token")
    store.append(task_id, "token", 0, "some ", tokens=2, prompt_tokens=3)
    cancelled = outcomes.cancel(store, task_id).record
    assert (cancelled.status, cancelled.result) == (Status.CANCELLED, "some ")
    assert cancelled.usage == Usage(3, 2)
    assert store.append(task_id, "token", 1, "more") is Verdict.CANCELLED
    assert store.move(completed(record, "all"), token="token").outcome is Moved.ENDED


def test_a_refused_submit_leaves_no_record_and_its_message_never_runs(
    store: Store, delivery: Delivery
) -> None:
    assert store.refuse(delivery.record.task_id) is True
    assert store.get(delivery.record.task_id) is None
    assert store.client.zcard(keys.OUTBOX) == 0
    assert store.claim(delivery.record, delivery.terms, "token", "worker").outcome is Claimed.ENDED


def test_a_submit_that_already_runs_is_not_refused(store: Store, delivery: Delivery) -> None:
    claim(store, delivery, "token")
    assert store.refuse(delivery.record.task_id) is False
    assert store.get(delivery.record.task_id).status is Status.PROCESSING


def test_a_task_that_redis_lost_is_rebuilt_from_its_message(store: Store, delivery: Delivery) -> None:
    store.client.flushdb()
    record = claim(store, delivery, "token")
    assert (record.prompt, record.attempt, record.created_at) == ("hello", 1, delivery.record.created_at)
    reset, *states = log.read(store, record.task_id)
    assert (reset.type, reset.data) == ("reset", {"reason": "log_lost"})
    assert [event.data["status"] for event in states] == ["PENDING", "PROCESSING"]


def test_every_key_of_a_task_expires_at_every_step(store: Store, delivery: Delivery) -> None:
    def check(client: redis.Redis) -> None:
        names = client.keys("*task:*")
        assert len(names) == 3
        assert all(client.ttl(name) > 0 for name in names)

    task_id = delivery.record.task_id
    check(store.client)
    record = claim(store, delivery, "token")
    store.append(task_id, "token", 0, "text")
    check(store.client)
    moved = store.move(record.but(status=Status.PENDING), token="token", reason="retry")
    check(store.client)
    record = claim(store, delivery, "next", moved.record)
    store.move(completed(record, "text"), token="next")
    check(store.client)
    assert store.client.ttl(keys.record(task_id)) <= 60


def test_the_same_id_is_accepted_once_and_refused_for_another_request(store: Store) -> None:
    record, terms = Record(new_task_id(), prompt="hello"), Terms(1000, 0, "print")
    assert store.submit(record, terms, 60).terms is not None
    again = store.submit(record, terms, 60)
    assert (again.terms, again.is_clash) == (None, False)
    assert store.submit(record, Terms(1000, 0, "other"), 60).is_clash


def test_the_id_of_a_refused_submit_is_used_up(store: Store) -> None:
    record, terms = Record(new_task_id(), prompt="hello"), Terms(1000, 0, "print")
    store.submit(record, terms, 60)
    store.refuse(record.task_id)
    again = store.submit(record, terms, 60)
    assert (again.terms, again.is_clash) == (None, True)


def test_a_repeated_submit_has_nothing_looked_at_later(store: Store, delivery: Delivery) -> None:
    record, soon = delivery.record, store.now_ms() + 1000
    for name in (keys.OUTBOX, keys.WATCH):
        store.client.zadd(name, {record.task_id: soon})
    store.submit(record, delivery.terms, 60, due_s=30)
    for name in (keys.OUTBOX, keys.WATCH):
        assert store.client.zscore(name, record.task_id) <= soon + 1


def test_times_are_those_of_redis_in_iso_8601(store: Store, delivery: Delivery) -> None:
    seconds, micros = store.client.time()
    created = time.strptime(delivery.record.created_at, "%Y-%m-%dT%H:%M:%S.%fZ")
    assert abs(calendar.timegm(created) - seconds - micros / 1e6) < 5
    stored = json.loads(store.client.get(keys.record(delivery.record.task_id)))
    assert stored["created_at"] == stored["updated_at"] < stored["deadline"]


def test_an_end_whose_tokens_are_no_number_changes_nothing(
    store: Store, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = completed(claim(store, delivery, "token"), "text").but(usage=Usage(3, 2.5))
    name = keys.state(ended.task_id)
    before = store.client.hgetall(name)
    with pytest.raises(ValueError, match="whole tokens"):
        store.move(ended, token="token")
    monkeypatch.setattr(Usage, "is_counted", True)
    with pytest.raises(StoreUnavailable):
        store.move(ended, token="token")
    assert store.client.hgetall(name) == before


def test_an_end_whose_price_is_beyond_counting_changes_nothing(store: Store, delivery: Delivery) -> None:
    beyond = Price.model_construct(prompt=1e300, completion=1, cached=None)
    store.prices = Prices({"local": beyond}, "local")
    ended = completed(claim(store, delivery, "token"), "text")
    name = keys.state(ended.task_id)
    before = store.client.hgetall(name)
    with pytest.raises(StoreUnavailable):
        store.move(ended, token="token")
    assert store.client.hgetall(name) == before


@pytest.mark.parametrize("counts", [(2.5, None), (1, 2.5), (-1, None)])
def test_text_whose_tokens_are_no_number_changes_nothing(
    store: Store, delivery: Delivery, counts: tuple[float, float | None]
) -> None:
    task_id = claim(store, delivery, "token").task_id
    with pytest.raises(StoreUnavailable):
        store.append(task_id, "token", 0, "text", *counts)
    assert store.append(task_id, "token", 0, "text") is Verdict.OK
    assert log.text_of(store, task_id, 1) == "text"


@pytest.mark.parametrize("counts", [(3, 2.5, ""), (3, 2, 2.5), (3, "many", 0)])
def test_a_bill_that_cannot_be_counted_is_not_begun(store: Store, counts: tuple[object, ...]) -> None:
    def run(name: str, *args: object) -> list[str]:
        return scripts.run(store.client, name, keys.METERING, ["id", *args])

    run("admit", "owner", "key", "queue", 5, 10, 20, 0, 60_000, *[0] * 14, "key")
    before = held(store)
    with pytest.raises(redis.ResponseError):
        run("bill", 1, *counts, 0)
    assert held(store) == before
    assert run("bill", 1, 3, 2, 5, 0)[0] == "billed"


def held(store: Store) -> dict[str, object]:
    """All hashes of the database."""
    names = store.client.keys("*")
    return {name: store.client.hgetall(name) for name in names if store.client.type(name) == "hash"}


def test_what_goes_wrong_at_a_beat_costs_no_other_attempt_its_lease(store: Store) -> None:
    beats: list[str] = []

    def breaks() -> None:
        beats.append("breaks")
        raise RuntimeError

    runs = []
    for token, on_beat in (("a", breaks), ("b", lambda: beats.append("b"))):
        submitted = store.submit(Record(new_task_id(), prompt="hello"), Terms(60_000, 0, "print"), 600)
        record = claim(store, Delivery(submitted.record, submitted.terms), token)
        runs.append(Running(record, token, 60.0, on_beat=on_beat))
    before = [store.control(one.record.task_id).lease_ms for one in runs]
    time.sleep(0.01)
    Heartbeat(store).beat(runs)
    after = [store.control(one.record.task_id).lease_ms for one in runs]
    assert all(late > early for early, late in zip(before, after, strict=True))
    assert beats == ["breaks", "b"]
