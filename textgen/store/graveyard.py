"""The index of dead letters: why each message could not become a text, and what it asked for.

RabbitMQ keeps the messages themselves in `<queue>.dead`, where nothing can look one up. Entries
expire as those messages do.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from textgen.store import keys
from textgen.store.connection import translated
from textgen.store.tasks import Store

#: Seconds that an entry is kept: a week.
KEPT_S = 7 * 24 * 3600
#: Entries kept; the oldest make room.
KEPT = 10_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter."""

    #: The task's id, or an id of its own where the message had none that is one.
    id: str
    #: Why it is one, without its content.
    reason: str
    #: The queue it came from.
    queue: str = ""
    #: ISO 8601, UTC.
    at: str = ""
    #: What became of each attempt: {`attempt`, `at`, `ended`}.
    attempts: list[dict[str, Any]] = field(default_factory=list)
    #: Id of the trace or of the outermost task that led here.
    trace_id: str | None = None
    #: Whose task it was.
    owner: str = "default"
    #: The arguments of `generate`; None where the message held no valid ones.
    request: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The dead letter as a JSON object."""
        return asdict(self)


def bury(store: Store, letter: DeadLetter) -> None:
    """Add an entry, or replace the one of the same id."""
    now = store.now_ms()
    with translated():
        pipe = store.client.pipeline(transaction=False)
        pipe.zadd(keys.DEAD, {letter.id: now})
        pipe.set(keys.dead_letter(letter.id), json.dumps(letter.as_dict()), ex=KEPT_S)
        pipe.zremrangebyscore(keys.DEAD, "-inf", now - KEPT_S * 1000)
        pipe.zremrangebyrank(keys.DEAD, 0, -KEPT - 1)
        pipe.execute()


def newest(store: Store, limit: int) -> list[DeadLetter]:
    """The newest entries, newest first."""
    with translated():
        ids = store.client.zrevrange(keys.DEAD, 0, limit - 1)
        texts = store.client.mget([keys.dead_letter(one) for one in ids]) if ids else []
    return [DeadLetter(**json.loads(text)) for text in texts if text]


def find(store: Store, letter_id: str) -> DeadLetter | None:
    """One entry, or None where there is none of this id."""
    with translated():
        text = store.client.get(keys.dead_letter(letter_id))
    return DeadLetter(**json.loads(text)) if text else None


def exhume(store: Store, letter_id: str) -> None:
    """Remove an entry, if there is one."""
    with translated():
        pipe = store.client.pipeline(transaction=False)
        pipe.delete(keys.dead_letter(letter_id))
        pipe.zrem(keys.DEAD, letter_id)
        pipe.execute()


def clear(store: Store) -> int:
    """Remove all entries; returns how many there were."""
    with translated():
        ids = store.client.zrange(keys.DEAD, 0, -1)
        pipe = store.client.pipeline(transaction=False)
        for one in ids:
            pipe.delete(keys.dead_letter(one))
            pipe.zrem(keys.DEAD, one)
        pipe.execute()
    return len(ids)
