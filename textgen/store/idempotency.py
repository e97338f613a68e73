"""Idempotency keys in Redis: which task a key of an owner leads to, for a day."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from textgen.store import keys
from textgen.store.connection import translated
from textgen.store.tasks import Store

#: Seconds that a key is kept: as long as Stripe's at the least (docs.stripe.com/api/idempotent_requests).
KEPT_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key leads to."""

    task_id: str
    #: Digest of the request that came with the key first.
    fingerprint: str
    #: The task's times once it is known to be accepted, ISO 8601; empty before.
    created_at: str = ""
    deadline: str = ""


def _name(owner: str, key: str) -> str:
    return keys.idempotency(owner, hashlib.sha256(key.encode()).hexdigest())


def claim(store: Store, owner: str, key: str, entry: Entry) -> Entry | None:
    """Let a key lead to `entry`, unless it leads somewhere already.

    Returns:
        None if it now does, else what it has led to before.
    """
    with translated():
        found = store.client.set(_name(owner, key), json.dumps(asdict(entry)), nx=True, get=True, ex=KEPT_S)
    return Entry(**json.loads(found)) if found else None


def settle(store: Store, owner: str, key: str, entry: Entry) -> None:
    """Write down that the task of a key was accepted, for the rest of the key's day."""
    with translated():
        store.client.set(_name(owner, key), json.dumps(asdict(entry)), xx=True, keepttl=True)


def release(store: Store, owner: str, key: str, entry: Entry) -> None:
    """Free a key whose submit was refused, unless it leads somewhere else by now."""
    name = _name(owner, key)
    with translated(), store.client.pipeline() as pipe:
        pipe.watch(name)
        if pipe.get(name) == json.dumps(asdict(entry)):
            pipe.multi()
            pipe.delete(name)
            pipe.execute(raise_on_error=False)
