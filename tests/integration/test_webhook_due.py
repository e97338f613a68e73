"""A delivery is due from the very script that changes the status, whatever dies afterwards."""

from __future__ import annotations

import json

import pytest

from tests.environment import Environment
from tests.receiver import Receiver
from textgen import outcomes
from textgen.lifecycle import Failure, Record, Status, new_task_id
from textgen.settings import Settings
from textgen.store import Store, deliveries, keys, open_store
from textgen.store.answers import Claim, Claimed, Moved, Terms
from textgen.store.tasks import UNCONFIRMED_S
from textgen.webhooks.deliver import Sender

EVENTS = ["task.processing", "task.completed", "task.failed", "task.cancelled"]


@pytest.fixture
def store(live: Environment) -> Store:
    return open_store()


def claimed(store: Store, url: str, token: str = "t") -> Claim:
    """A task with a webhook for every event, and an attempt at it."""
    record = Record(
        new_task_id(), prompt="Hello", metadata={"empty": [], "é": 2**60}, webhook={"events": EVENTS}
    )
    terms = Terms(60_000, 0, "print", webhook=json.dumps({"url": url, "events": EVENTS}))
    submitted = store.submit(record, terms, 600)
    assert submitted.terms
    claim = store.claim(submitted.record, submitted.terms, token, "worker")
    assert claim.outcome is Claimed.TAKEN
    return claim


def due(store: Store, task_id: str, word: str) -> float | None:
    """Milliseconds until the delivery is due."""
    score = store.client.zscore(keys.WEBHOOKS, f"msg_{task_id}_{word}_1")
    return None if score is None else score - store.now_ms()


def test_a_process_that_dies_right_after_the_change_leaves_its_delivery_due(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what is left when a process is killed after the script and before its next command
    monkeypatch.setattr(Store, "_leave", lambda *_: None)
    with Receiver() as receiver:
        claim = claimed(store, receiver.url)
        assert claim.record
        task_id = claim.record.task_id
        ended = store.move(claim.record.but(status=Status.COMPLETED, result="x" * 50_000), token="t")
        assert ended.record

        for word in ("processing", "completed"):
            in_ms = due(store, task_id, word)
            assert in_ms is not None
            assert 0 < in_ms <= UNCONFIRMED_S * 1000
            assert deliveries.is_pending(store, f"msg_{task_id}_{word}_1")
            Sender(Settings(webhook_allow="127.0.0.0/8"), store).attempt(f"msg_{task_id}_{word}_1")
        processing, completed = (json.loads(received.body) for received in receiver.received)

    assert processing["data"] == claim.record.as_dict()
    assert processing["timestamp"] == claim.record.started_at
    assert completed["truncated"] == ["prompt", "result"]
    whole = ended.record.as_dict() | {"prompt": None, "result": completed["data"]["result"]}
    assert completed["data"] == whole
    assert "x" * 50_000 > completed["data"]["result"] > "x" * 10_000


def test_a_change_is_announced_at_once(store: Store) -> None:
    claim = claimed(store, "http://127.0.0.1:9/")
    assert claim.record
    in_ms = due(store, claim.record.task_id, "processing")
    assert in_ms is not None
    assert in_ms <= 5


def test_a_change_that_was_refused_tells_nothing(store: Store) -> None:
    claim = claimed(store, "http://127.0.0.1:9/")
    assert claim.record
    done = claim.record.but(status=Status.COMPLETED, result="x")
    assert store.move(done, token="another").outcome is Moved.FENCED
    assert not deliveries.is_pending(store, f"msg_{done.task_id}_completed_1")


def test_every_way_to_end_tells_the_webhook(store: Store) -> None:
    cancelled = claimed(store, "http://127.0.0.1:9/").record
    assert cancelled
    outcomes.cancel(store, cancelled.task_id)
    assert deliveries.is_pending(store, f"msg_{cancelled.task_id}_cancelled_1")

    expired = claimed(store, "http://127.0.0.1:9/").record
    assert expired
    control = store.control(expired.task_id)
    assert control
    outcomes.expire(store, expired, control.rev, Failure("deadline", "too late"))
    assert deliveries.is_pending(store, f"msg_{expired.task_id}_failed_1")


def test_redis_that_lost_a_task_gets_its_webhook_back_with_it(store: Store) -> None:
    record = Record(new_task_id(), prompt="Hello", webhook={"events": EVENTS})
    webhook = json.dumps({"url": "http://127.0.0.1:9/", "events": EVENTS})
    terms = Terms(60_000, int(store.now_ms()) + 60_000, "print", webhook=webhook)
    store.claim(record, terms, "t", "worker")
    control = store.control(record.task_id)
    assert control
    assert control.webhook == webhook
    begun = deliveries.begin(store, f"msg_{record.task_id}_processing_1", 5)
    assert begun
    assert begun.url == "http://127.0.0.1:9/"


def test_a_delivery_is_one_senders_at_a_time(store: Store) -> None:
    claim = claimed(store, "http://127.0.0.1:9/")
    assert claim.record
    delivery_id = f"msg_{claim.record.task_id}_processing_1"
    assert deliveries.begin(store, delivery_id, 5)
    assert deliveries.begin(store, delivery_id, 5) is None
    assert due(store, claim.record.task_id, "processing") is not None


def test_the_address_stands_neither_in_the_record_nor_among_its_events(store: Store) -> None:
    claim = claimed(store, "http://127.0.0.1:9/?canary")
    assert claim.record
    task_id = claim.record.task_id
    assert "canary" not in str(store.client.get(keys.record(task_id)))
    assert "canary" not in str(store.client.xrange(keys.events(task_id)))


def test_all_that_is_kept_of_a_webhook_expires(store: Store) -> None:
    with Receiver(500) as receiver:
        claim = claimed(store, receiver.url)
        assert claim.record
        task_id = claim.record.task_id
        sender = Sender(Settings(webhook_allow="127.0.0.0/8", webhook_retries_s="0.01"), store)
        assert 0 < store.client.pttl(keys.webhooks(task_id)) <= 4 * 24 * 3600 * 1000
        sender.attempt(f"msg_{task_id}_processing_1")
        assert store.client.pttl(keys.webhooks(task_id)) > 0
        sender.attempt(f"msg_{task_id}_processing_1")
        assert store.client.exists(keys.webhooks(task_id)) == 0
        assert store.client.pttl(keys.deliveries(task_id)) > 0
