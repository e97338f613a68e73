"""Who waits in a lane, and how fast it moves: from this, where a task stands and when it may start.

All of it is estimated. The broker's own order differs where priorities, prefetching and retries come in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from textgen.lifecycle import Record, Status
from textgen.settings import get_settings
from textgen.store import keys, lines
from textgen.store.connection import translated
from textgen.store.index import Command
from textgen.store.records import Records

#: Milliseconds for which who waits is kept: longer than any deadline.
KEPT_MS = 31 * 24 * 3_600_000
#: Milliseconds for which the ends of attempts are kept, and how many of them.
ENDS_KEPT_MS, ENDS_KEPT = 3_600_000, 1000
#: Entries at the head of a lane that one look compares with their tasks.
PRUNED = 100


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a waiting task may expect; None where nothing is known."""

    #: 1: it is next.
    queue_position: int | None = None
    #: Seconds until its attempt may begin.
    eta_s: float | None = None


def _line(record: Record) -> str:
    return lines.line_of(record, get_settings())


def _member(record: Record, attempt: int | None = None) -> str:
    return f"{record.task_id}.{record.attempt if attempt is None else attempt}"


def enter(record: Record, due_ms: float) -> list[Command]:
    """Put a task that is about to be PENDING into its lane, where an attempt may begin from `due_ms` on."""
    name = keys.waiting(_line(record))
    return [("ZADD", name, "NX", due_ms, _member(record)), ("PEXPIRE", name, KEPT_MS)]


def forget(record: Record) -> list[Command]:
    """Take a task that is gone out of its lane."""
    return [("ZREM", keys.waiting(_line(record)), _member(record))]


def leave(record: Record, now_ms: float) -> list[Command]:
    """Take a task out of its lane that has left PENDING, and note an attempt that has ended."""
    if record.status is Status.PROCESSING:
        return [("ZREM", keys.waiting(_line(record)), _member(record, record.attempt - 1))]
    left: list[Command] = []
    if record.status.is_terminal:
        left += forget(record)
    if record.attempt:
        name = keys.ends(_line(record))
        left += [("ZADD", name, now_ms, _member(record)), ("ZREMRANGEBYRANK", name, 0, -ENDS_KEPT - 1)]
        left.append(("PEXPIRE", name, ENDS_KEPT_MS))
    return left


def prune(store: Records) -> None:
    """Take tasks out of the heads of all lanes that do not wait any more."""
    for line in lines.every(get_settings()):
        name = keys.waiting(line)
        with translated():
            members = store.client.zrange(name, 0, PRUNED - 1)
        stale = [member for member in members if not _waits(store, member)]
        if stale:
            store.send([("ZREM", name, *stale)])


def _waits(store: Records, member: str) -> bool:
    task_id, _, attempt = member.partition(".")
    control = store.control(task_id)
    return control is not None and (control.status, control.attempt) == (Status.PENDING, int(attempt))


def outlooks(store: Records, records: Iterable[Record]) -> dict[str, Outlook]:
    """What those of `records` that are PENDING may expect, by task id."""
    waiting = [record for record in records if record.status is Status.PENDING]
    if not waiting:
        return {}
    now, paces = store.now_ms(), {line: _pace_ms(store, line) for line in set(map(_line, waiting))}
    with translated():
        pipe = store.client.pipeline(transaction=False)
        for record in waiting:
            pipe.zrank(keys.waiting(_line(record)), _member(record))
            pipe.zscore(keys.waiting(_line(record)), _member(record))
        answers = pipe.execute()
    return {
        record.task_id: _outlook(answers[2 * i], answers[2 * i + 1], now, paces[_line(record)])
        for i, record in enumerate(waiting)
    }


def _pace_ms(store: Records, lane: str) -> float | None:
    """Milliseconds in which a lane moves on by one task, measured since its head waits; None: unknown.

    Before that it may have been empty, and what ended then says how fast tasks came, not how fast they go.
    """
    now = store.now_ms()
    with translated():
        pipe = store.client.pipeline(transaction=False)
        pipe.zcount(keys.WORKERS, now, "+inf")
        pipe.zrange(keys.waiting(lane), 0, 0, withscores=True)
        pipe.zrange(keys.ends(lane), 0, 0, withscores=True)
        pipe.zcard(keys.ends(lane))
        workers, head, oldest, kept = pipe.execute()
        if not (workers and head and oldest):
            return None
        since = max(head[0][1], oldest[0][1]) if kept >= ENDS_KEPT else head[0][1]
        ended = store.client.zcount(keys.ends(lane), since, "+inf")
    return (now - since) / ended if ended and now > since else None


def _outlook(rank: int | None, due_ms: float | None, now_ms: float, pace_ms: float | None) -> Outlook:
    """Reckon from the place in the lane and the milliseconds in which the lane moves on by one."""
    if rank is None or due_ms is None:
        return Outlook()
    if due_ms > now_ms:
        return Outlook(None, math.ceil((due_ms - now_ms) / 100) / 10)
    return Outlook(rank + 1, None if pace_ms is None else math.ceil((rank + 1) * pace_ms / 100) / 10)
