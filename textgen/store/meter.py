"""The meter in Redis: lets tasks in as limits allow, holds what they may use, and keeps the ledger.

Everything it knows stands in one slot, and each call is one script: what is held for a task, the counts
and the ledger change together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from textgen.caller import Caller, Limits
from textgen.lifecycle import Record
from textgen.prices import NANO
from textgen.settings import get_settings
from textgen.store import keys, lines, scripts
from textgen.store.answers import Control
from textgen.store.connection import translated
from textgen.store.tasks import UNCONFIRMED_S, Store

#: Seconds after which the janitor looks whether a task that was let in was submitted too.
SUBMITTED_S = 60.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a task may use: reserved when it is let in, settled when it has ended."""

    tokens: int
    nano: int


@dataclass(frozen=True, slots=True)
class Rate:
    """How much of a limit per minute is left."""

    #: `requests` or `tokens`.
    name: str
    limit: int
    remaining: int
    #: Seconds until all of it is there again.
    reset_s: float


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to a task that wants in."""

    #: `admitted`, `already` or `refused`.
    word: str
    #: Where it is to go: `lane` or `free` (publish it), or `waiting`.
    place: str = ""
    #: Which limit refused it, and of whom: `key` or `all`.
    limit: str = ""
    scope: str = ""
    retry_after_s: float = 0.0
    #: Of the key.
    rates: tuple[Rate, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A task for which something is held."""

    task_id: str
    #: Owner and lane, as `queue_of` names them.
    queue: str
    #: Milliseconds since 1970 at which it was let in.
    at_ms: int

    def is_of(self, control: Control | None) -> bool:
        """Whether this is for the task that `control` tells of, rather than for a submit without effect.

        A submit whose id was used before is let in too, before that is found out.
        """
        return control is not None and not control.refused and control.ended_ms >= self.at_ms


def queue_of(record: Record) -> str:
    """The queue that a task waits in where its owner's share is used up."""
    return f"{record.owner}/{lines.line_of(record, get_settings())}"


def _run(store: Store, name: str, *args: Any, before: Iterable[tuple[Any, ...]] = ()) -> list[Any]:
    with translated():
        return list(scripts.run(store.client, name, keys.METERING, list(args), *before))


def admit(
    store: Store,
    record: Record,
    caller: Caller,
    reserved: Reservation,
    each: Limits,
    everybody: Limits,
    share: int,
) -> Admission:
    """Let a task in if every limit allows it, and reserve what it may use.

    Args:
        store: Whose Redis.
        record: The task.
        caller: On whose behalf.
        reserved: What it may use at the most.
        each: The limits of the caller's key, which it shares with those that it replaced.
        everybody: Those of all together.
        share: Tasks of one owner in a lane at once; 0: any number, and this one is not counted.
    """
    word, _, *rest = _run(
        store,
        "admit",
        record.task_id,
        caller.owner,
        caller.key_id,
        queue_of(record),
        9 - record.priority,
        reserved.tokens,
        reserved.nano,
        share,
        int(SUBMITTED_S * 1000),
        *_numbers(each),
        *_numbers(everybody),
        caller.line or caller.key_id,
    )
    if word == "refused":
        limit, scope, wait_ms, *rates = rest
        whose = "key" if scope == "1" else "all"
        return Admission(word, "", limit, whose, int(wait_ms) / 1000, _rates(rates))
    return Admission(word, rest[0] if rest else "", rates=_rates(rest[1:]))


def _numbers(limits: Limits) -> list[int]:
    return [
        limits.requests_per_minute or 0,
        limits.tokens_per_minute or 0,
        limits.tasks or 0,
        limits.tokens_per_day or 0,
        limits.tokens_per_month or 0,
        round((limits.usd_per_day or 0) * NANO),
        round((limits.usd_per_month or 0) * NANO),
    ]


def _rates(parts: list[str]) -> tuple[Rate, ...]:
    found = [parts[i : i + 4] for i in range(0, len(parts), 4)]
    return tuple(Rate(name, int(limit), int(rest), int(ms) / 1000) for name, limit, rest, ms in found)


def settle(store: Store, held: Held, control: Control | None, share: int) -> list[str]:
    """Settle what is held for a task that has ended, or for a submit that came to nothing.

    Returns:
        The ids of tasks that were let into the lane instead, to be published. Each has an outbox entry.
    """
    head = _head(store, held.queue) if share else []
    counts = held.is_of(control)
    _, _, *released = _run(
        store,
        "bill",
        held.task_id,
        int(counts),
        control.spent_prompt if control and counts else 0,
        control.spent_completion if control and counts else 0,
        control.spent_nano if control and counts and control.spent_nano is not None else "",
        share,
        *head,
        before=_announced(store, head),
    )
    return released


def find(store: Store, task_id: str) -> tuple[Held | None, Control | None]:
    """What is held for a task, if anything is, and its control fields."""
    with translated():
        pipe = store.client.pipeline(transaction=False)
        held, fields = pipe.hget(keys.HELD, task_id).hgetall(keys.state(task_id)).execute()
    control = Control.of(fields) if fields and "status" in fields else None
    if not held:
        return None, control
    parts = held.split("|")
    return Held(task_id, parts[3], int(parts[10])), control


def _head(store: Store, queue: str, number: int = 2) -> list[str]:
    with translated():
        return list(store.client.zrange(keys.WAITING + queue, 0, number - 1))


def _announced(store: Store, ids: list[str]) -> list[tuple[Any, ...]]:
    """Outbox entries for tasks that may be let in: the janitor drops those of tasks that still wait."""
    due = store.now_ms() + UNCONFIRMED_S * 1000
    return [("ZADD", keys.OUTBOX, due, one) for one in ids]


def let_in(store: Store, share: int, limit: int = 100) -> list[str]:
    """Let waiting tasks of every owner in where there is room; returns their ids, as `settle` does."""
    with translated():
        queues = sorted(store.client.smembers(keys.QUEUES))
        counts = store.client.hmget(keys.LANES, queues) if queues else []
    found = []
    for queue, count in zip(queues, counts, strict=True):
        room = min(limit, share - int(count or 0)) if share else limit
        if room > 0:
            head = _head(store, queue, room)
            found += _run(store, "let_in", queue, share, *head, before=_announced(store, head))[2:]
    return found


def is_waiting(store: Store, record: Record) -> bool:
    """Whether a task waits to be let into a lane."""
    with translated():
        return str(store.client.hget(keys.HELD, record.task_id)).startswith("waiting|")
