"""Cached results in Redis, and who generates what at the moment.

A result stands under its scope (an owner, or all) and the digest of its request; nothing of a request
stands in a key. All keys of a scope are in one slot, and all expire.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from textgen.lifecycle import Record, Status, Usage
from textgen.store import keys, scripts
from textgen.store.connection import translated
from textgen.store.records import Records

#: Cached results that one call deletes: a script holds Redis up while it runs.
PAGE = 1000
#: What a task costs that was answered by the text of another.
NOTHING_USED = Usage(0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the result of a request stands."""

    #: Whose results: an owner, or `*` where all share them.
    scope: str
    digest: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The result of a task that completed."""

    text: str
    finish_reason: str | None
    model: str | None
    engine: str | None
    #: What it took to write it: the record's `usage`.
    usage: dict[str, Any] | None = None

    @classmethod
    def of(cls, record: Record) -> Self:
        """What a COMPLETED record has to give."""
        used = record.usage.as_dict() if record.usage else None
        return cls(record.result or "", record.finish_reason, record.model, record.engine, used)

    def on(self, record: Record) -> Record:
        """The record of another task, completed by this result."""
        return record.but(
            status=Status.COMPLETED,
            result=self.text,
            error=None,
            finish_reason=self.finish_reason,
            usage=NOTHING_USED,
            model=self.model,
            engine=self.engine,
            cached=True,
        )


class Role(StrEnum):
    """What a delivery is to do about its result."""

    #: Take it from the cache.
    HIT = "hit"
    #: Generate: the task leads from now on.
    LEAD = "lead"
    #: Generate: the task led before.
    LEADS = "leads"
    #: Wait: another task leads, and may do it for this one too.
    FOLLOW = "follow"


@dataclass(frozen=True, slots=True)
class Entrance:
    """The answer to a delivery that is about to be claimed."""

    role: Role
    #: The result of a HIT.
    stored: Stored | None = None


def _run(store: Records, name: str, scope: str, *args: Any) -> list[Any]:
    with translated():
        return list(scripts.run(store.client, name, keys.of_cache(scope), list(args)))


def _loaded(text: str) -> Stored:
    return Stored(**json.loads(text))


def find(store: Records, place: Place) -> Stored | None:
    """Read a result, or None where there is none."""
    with translated():
        text = store.client.get(keys.cached(place.scope, place.digest))
    return _loaded(text) if text else None


def put(store: Records, place: Place, stored: Stored, ttl_s: int, max_entries: int, max_bytes: int) -> bool:
    """Keep a result for `ttl_s` seconds; the oldest of its scope make room. False: it is too large."""
    text = json.dumps(asdict(stored), ensure_ascii=False, separators=(",", ":"))
    word, _ = _run(store, "cache_put", place.scope, place.digest, text, ttl_s * 1000, max_entries, max_bytes)
    return bool(word == "kept")


def clear(store: Records, scope: str) -> int:
    """Delete all results of a scope; returns how many there were."""
    deleted, left = 0, 1
    while left:
        _, _, number, left = _run(store, "cache_clear", scope, PAGE)
        deleted, left = deleted + int(number), int(left)
    return deleted


def enter(store: Records, place: Place, task_id: str, lease_ms: int, can_be_adopted: bool) -> Entrance:
    """Say what a delivery is to do: take the result, lead, or wait for the task that leads.

    Args:
        store: Where.
        place: Of its result.
        task_id: The task.
        lease_ms: Milliseconds for which it leads, unless it renews that.
        can_be_adopted: Whether the leader may claim and complete the task, if it is to wait.
    """
    word, _, *rest = _run(
        store, "cache_enter", place.scope, place.digest, task_id, lease_ms, int(can_be_adopted)
    )
    role = Role(word)
    return Entrance(role, _loaded(rest[0]) if role is Role.HIT else None)


def attend(store: Records, place: Place, task_id: str, lease_ms: int, limit: int) -> tuple[bool, list[str]]:
    """Renew the lead of a task and take followers out of those that wait.

    Returns:
        Whether the task still leads, and the ids of `limit` followers at the most. Those that come to
        nothing register again by themselves.
    """
    word, _, *ids = _run(store, "cache_attend", place.scope, place.digest, task_id, lease_ms, limit)
    return word == "leads", ids


def leave(store: Records, place: Place, task_id: str) -> None:
    """Give the lead up, if the task has it."""
    _run(store, "cache_leave", place.scope, place.digest, task_id)
