"""Histories made by hand: their entries with what matters not filled in, and two that are good."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from tests.faults.history import (
    Entry,
    Fault,
    Final,
    History,
    Meta,
    Rate,
    Read,
    Record,
    Resources,
    Run,
    Store,
    Submit,
    Ttl,
    Webhook,
)

#: When all histories here begin; times below are seconds after it.
START = 1_800_000_000.0
META = Meta(1, "rabbitmq", ttl_s=60, max_attempts=3, answer_bound_s=10, end_bound_s=60)


def record(status: str = "COMPLETED", attempt: int = 1, ended: float = 2.0, **changes: Any) -> Record:
    text = "aa" if status == "COMPLETED" else None
    iso = datetime.fromtimestamp(START + ended, UTC).isoformat()
    return replace(Record(status, attempt, 0, text, None, iso, "ann", "op1"), **changes)


def submit(op: str = "op1", at: float = 1.0, took: float = 0.1, **changes: Any) -> Submit:
    made = Submit(START + at, START + at + took, "http", op, "ann", None, 202, f"id-{op}")
    return replace(made, **changes)


def refused(op: str, at: float = 1.0, **changes: Any) -> Submit:
    return submit(op, at, status=503, id=None, retry_after=True, **changes)


def unanswered(op: str, at: float = 1.0, **changes: Any) -> Submit:
    return submit(op, at, status=None, id=None, **changes)


def read(seen: Record | None, at: float = 3.0, took: float = 0.1, **changes: Any) -> Read:
    made = Read(START + at, START + at + took, "ann", "id-op1", 200 if seen else 404, seen, "ann")
    return replace(made, **changes)


def run(step: str = "begin", at: float = 1.5, op: str = "op1", **changes: Any) -> Run:
    return replace(Run(START + at, op, f"id-{op}", 1, 7, step), **changes)


def final(records: dict[str, Record] | None = None, **changes: Any) -> Final:
    known = {"id-op1": record()} if records is None else records
    return replace(Final(START + 90, known, {"lane": 0, "lane.bulk": 0}, []), **changes)


def webhook(webhook_id: str = "w1", event: str = "completed") -> Webhook:
    return Webhook(START + 4, "id-op1", webhook_id, event)


def rate(since_heal_s: float, per_s: float, at: float = 20.0) -> Rate:
    return Rate(START + at, 4, since_heal_s, 4.0, per_s)


def fault(step: str, at: float) -> Fault:
    return Fault(START + at, 4, "kill -9 of a worker", step)


def ttl(left_ms: int) -> Ttl:
    return Ttl(START + 3, {"task:id-op1": left_ms})


def samples(**series: list[float]) -> list[Entry]:
    """Samples of a process; what no series is given for stays as it is."""
    still: dict[str, Any] = {"rss_mb": 90.0, "fds": 40, "redis_clients": 9, "connections": 4, "channels": 4}
    rows = [dict(zip(series, values, strict=True)) for values in zip(*series.values(), strict=True)]
    return [Resources(START + n, "web", **{**still, **row}) for n, row in enumerate(rows)]


def store(event: str, at: float) -> Store:
    return Store(START + at, event)


DEAD = record("FAILED", 3, failures=3, error_type="worker_lost")
#: A task that is refused, repeated, accepted, attempted twice and completed.
GOOD: list[Entry] = [
    META,
    refused("op1", 0.5, key="key1"),
    submit(key="key1"),
    submit(at=1.2, key="key1", replayed=True),
    read(record("PENDING", 0), 1.1),
    run(),
    read(record("PROCESSING"), 1.6),
    read(record("PENDING", failures=1), 1.8),
    run(at=1.9, attempt=2),
    run("end", 1.95, attempt=2),
    read(record(attempt=2, failures=1), 3.0),
    ttl(59_000),
    webhook(),
    rate(5.0, 4.0),
    *samples(fds=[40.0] * 12),
    final({"id-op1": record(attempt=2, failures=1)}),
]
#: Less than that: a task that is accepted and completed.
PLAIN: list[Entry] = [META, submit(), run(), run("end", 1.9), final()]


def without(*kinds: type[Entry]) -> list[Entry]:
    return [entry for entry in PLAIN if not isinstance(entry, kinds)]


def with_plain(entries: list[Entry]) -> list[Entry]:
    """A plain history with these entries in it, or the entries themselves where they are a history."""
    return entries if META in entries else [*PLAIN, *entries]


def write(history: History, entry: Entry) -> None:
    history.write(type(entry).__name__.lower(), **asdict(entry))
