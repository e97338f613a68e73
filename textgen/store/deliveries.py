"""Deliveries of webhooks in Redis: what is to be sent, the log of tries, addresses that are gone.

When each is due stands in the sorted set `keys.WEBHOOKS`; what it is stands beside the task.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from textgen.store import keys, scripts
from textgen.store.connection import translated
from textgen.store.notices import task_of
from textgen.store.tasks import Store

#: Entries that a task's log keeps, the newest.
LOG_LENGTH = 100
#: Seconds for which an address that answered 410 Gone is sent nothing.
GONE_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery that is this caller's to try."""

    id: str
    #: The body, byte for byte the same in every try.
    body: str
    url: str
    owner: str
    #: Under which name the secret stands that signs it.
    signer: str
    #: Tries that failed before this one.
    tries: int


@dataclass(frozen=True, slots=True)
class Try:
    """How one try ended: an entry of the log, which holds neither address nor answer."""

    #: The `webhook-id`.
    id: str
    #: The event, such as `task.completed`.
    type: str
    #: Number of the try, from 1.
    number: int
    #: `delivered`, `failed` (there is another try), `given_up`, `gone` or `disabled`.
    outcome: str
    #: Status that the receiver answered, or None.
    status_code: int | None
    #: Why it was no success, in a word or two; empty if it was.
    reason: str
    duration_ms: int


def is_pending(store: Store, delivery_id: str) -> bool:
    """Whether there is something to send under this id."""
    with translated():
        return bool(store.client.hexists(keys.webhooks(task_of(delivery_id)), f"{delivery_id}:body"))


def begin(store: Store, delivery_id: str, for_s: float) -> Delivery | None:
    """Take a delivery for a while, or None if it is somebody else's or there is none."""
    task_id = task_of(delivery_id)
    if not task_id:
        return None
    word, _, *rest = _run(store, "delivery_begin", task_id, delivery_id, int(for_s * 1000))
    if word == "none":
        withdraw(store, delivery_id)
    if word != "taken":
        return None
    body, webhook, tries = rest
    owner, asked = json.loads(body)["data"]["owner"], json.loads(webhook)
    return Delivery(delivery_id, body, asked["url"], owner, asked.get("signer", owner), int(tries))


def end(store: Store, delivery: Delivery, tried: Try, again_in_s: float | None) -> None:
    """Write down how a try ended, and when the next one is due (None: there is none)."""
    again = "" if again_in_s is None else int(again_in_s * 1000)
    entry = json.dumps(asdict(tried), separators=(",", ":"))
    _run(store, "delivery_end", task_of(delivery.id), delivery.id, entry, LOG_LENGTH, again)
    if again_in_s is None:
        withdraw(store, delivery.id)
    else:
        _schedule(store, delivery.id, again_in_s)


def _run(store: Store, script: str, task_id: str, *args: Any) -> Any:
    with translated():
        return scripts.run(store.client, script, [make(task_id) for make in keys.OF_TASK], list(args))


def put_back(store: Store, delivery: Delivery, again_in_s: float) -> None:
    """Give a delivery back untried."""
    with translated():
        store.client.hdel(keys.webhooks(task_of(delivery.id)), f"{delivery.id}:taken")
    _schedule(store, delivery.id, again_in_s)


def withdraw(store: Store, delivery_id: str) -> None:
    """Take a delivery off the schedule."""
    with translated():
        store.client.zrem(keys.WEBHOOKS, delivery_id)


def _schedule(store: Store, delivery_id: str, in_s: float) -> None:
    with translated():
        store.client.zadd(keys.WEBHOOKS, {delivery_id: store.now_ms() + in_s * 1000})


def log(store: Store, task_id: str) -> list[dict[str, Any]]:
    """The tries of a task's deliveries, oldest first."""
    with translated():
        entries = store.client.lrange(keys.deliveries(task_id), 0, -1)
    return [json.loads(entry) for entry in entries]


def _gone(owner: str, url: str) -> str:
    return keys.webhook_gone(owner, hashlib.sha256(url.encode()).hexdigest())


def disable(store: Store, owner: str, url: str) -> None:
    """Send nothing more to an address of an owner, for `GONE_S` seconds or until `enable`."""
    with translated():
        store.client.set(_gone(owner, url), 1, ex=GONE_S)


def enable(store: Store, owner: str, url: str) -> None:
    """Send to an address of an owner again."""
    with translated():
        store.client.delete(_gone(owner, url))


def is_disabled(store: Store, owner: str, url: str) -> bool:
    """Whether an address of an owner has answered 410 Gone."""
    with translated():
        return bool(store.client.exists(_gone(owner, url)))
