"""The checker can fail: each invariant has a history that breaks it and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.checker import RULES, check
from tests.faults.history import Entry

Change = Callable[[list[Entry]], None]


def submit(op: str = "op1", **changes: Any) -> Entry:
    made: Entry = {"kind": "submit", "at": 1.0, "until": 1.1, "how": "http", "op": op, "owner": "ann"}
    made |= {"key": None, "status": 202, "id": f"task-{op}", "retry_after": False, "replayed": False}
    return made | {"killed": False, "visible": None} | changes


def record(status: str = "COMPLETED", **changes: Any) -> dict[str, Any]:
    made = {"status": status, "attempt": 1, "failures": 0, "result_sha256": "aa", "error_type": None}
    return made | {"updated_at": "2026-01-01T00:00:02.000Z"} | changes


def read(seen: dict[str, Any] | None, op: str = "op1", **changes: Any) -> Entry:
    made: Entry = {"kind": "read", "at": 2.0, "until": 2.1, "owner": "ann", "id": f"task-{op}"}
    return made | {"status": 200 if seen else 404, "record": seen, "owner_of": "ann"} | changes


def run(step: str, op: str = "op1", **changes: Any) -> Entry:
    made: Entry = {"kind": "run", "at": 1.5, "op": op, "id": f"task-{op}", "attempt": 1, "pid": 1}
    return made | {"step": step} | changes


def final(records: dict[str, Any] | None = None, **changes: Any) -> Entry:
    known = {"task-op1": record() | {"owner": "ann", "op": "op1"}} if records is None else records
    made: Entry = {"kind": "final", "at": 9.0, "records": known, "queues": {"lane": 0}, "dead": []}
    return made | changes


def samples(values: list[float]) -> list[Entry]:
    made: Entry = {"kind": "resources", "at": 1.0, "process": "web", "rss_mb": 90.0, "redis_clients": 9}
    return [made | {"connections": 4, "fds": value} for value in values]


def good() -> list[Entry]:
    """A history in which a task is refused, accepted, attempted twice and completed."""
    return [
        {"kind": "meta", "seed": 1, "stack": "rabbitmq", "ttl_s": 60, "max_attempts": 3}
        | {"answer_bound_s": 10, "end_bound_s": 60, "queues": ["lane"]},
        submit("op0", status=503, id=None, retry_after=True),
        submit("op2", status=None, id=None, killed=True),
        submit(key="key1"),
        submit(key="key1", at=1.2, until=1.3, replayed=True),
        submit(key="key1", at=1.2, until=1.3, status=409, id=None, retry_after=True),
        read(record("PROCESSING", result_sha256=None), at=1.2, until=1.3),
        run("begin"),
        read(record("PENDING", result_sha256=None, failures=1), at=1.4, until=1.5),
        run("begin", attempt=2),
        run("end", attempt=2),
        read(record()),
        read(None, owner="bob"),
        read(None, status=503, at=3.0, until=3.1),
        {"kind": "ttl", "at": 3.0, "keys": {"task:task-op1": 59_000, "task:gone": -2}},
        {"kind": "rate", "at": 4.0, "row": 4, "since_heal_s": 3.0, "baseline_per_s": 4.0, "per_s": 4.0},
        {"kind": "webhook", "at": 4.0, "id": "task-op1", "event": "completed", "webhook_id": "w1"},
        {"kind": "webhook", "at": 5.0, "id": "task-op1", "event": "completed", "webhook_id": "w1"},
        *samples([40.0] * 12),
        final(),
    ]


def add(*entries: Entry) -> Change:
    return lambda history: history.extend(entries)


def end(entry: Entry) -> Change:
    """Replace what was left at the end."""

    def change(history: list[Entry]) -> None:
        history[-1] = entry

    return change


def drop_what_is_left(history: list[Entry]) -> None:
    """Forget every trace of the task but that it was accepted."""
    history[:] = [e for e in history if e["kind"] in ("meta", "submit")] + [final({})]


WAITING = {"task-op1": record("PROCESSING", result_sha256=None) | {"owner": "ann", "op": "op1"}}
DEAD = {"task-op1": record("FAILED", error_type="worker_lost") | {"owner": "ann", "op": "op1"}}
BAD: list[tuple[str, set[str], Change]] = [
    ("accepted and never ended", {"I1", "I4"}, drop_what_is_left),
    ("ended twice", {"I1", "I2"}, add(read(record("FAILED"), until=5.0))),
    ("went back", {"I2"}, end(final(WAITING))),
    ("a result changed", {"I3"}, add(read(record(result_sha256="bb"), until=5.0))),
    (
        "one delivery, two webhook ids",
        {"I3"},
        add({"kind": "webhook", "at": 6.0, "id": "task-op1", "event": "completed", "webhook_id": "w2"}),
    ),
    ("could not be read", {"I5"}, add(read(None))),
    ("a key for ever", {"I6"}, add({"kind": "ttl", "at": 3.0, "keys": {"task:task-op1": -1}})),
    ("a key for too long", {"I6"}, add({"kind": "ttl", "at": 3.0, "keys": {"task:task-op1": 60_001}})),
    ("a message is left", {"I7"}, end(final(queues={"lane": 2}))),
    ("a dead letter that completed", {"I7"}, end(final(dead=[{"id": "task-op1", "reason": "?"}]))),
    ("given up and no dead letter", {"I1", "I2", "I7"}, end(final(DEAD))),
    ("refused and ran", {"I8"}, add(run("begin", "op0"))),
    (
        "refused and can be read",
        {"I8"},
        end(final({"task-op1": record() | {"op": "op1"}, "x": record() | {"op": "op0"}})),
    ),
    ("answered late", {"I9"}, add(submit(until=12.0))),
    ("not answered", {"I9"}, add(submit("op3", status=None, id=None))),
    ("refused without a hint", {"I9"}, add(submit("op3", status=503, id=None))),
    ("an error of the server", {"I9"}, add(submit("op3", status=500, id=None))),
    ("one key, two tasks", {"I1", "I4", "I10"}, add(submit("op4", key="key1"))),
    ("read by another owner", {"I11"}, add(read(record(), owner="bob"))),
    ("a prompt in a log", {"I12"}, add({"kind": "leak", "at": 9.0, "where": "worker.log"})),
    (
        "no recovery in time",
        {"I13"},
        add({"kind": "rate", "at": 4.0, "row": 4, "since_heal_s": 31.0, "baseline_per_s": 4.0, "per_s": 4.0}),
    ),
    (
        "slower than before",
        {"I13"},
        add({"kind": "rate", "at": 4.0, "row": 4, "since_heal_s": 9.0, "baseline_per_s": 4.0, "per_s": 3.0}),
    ),
    ("too many attempts", {"I14"}, add(read(record(failures=5)))),
    ("one attempt twice", {"I14"}, add(run("begin", pid=2))),
    ("ever more files", {"I15"}, add(*samples([200.0 + 40 * n for n in range(40)]))),
]


def test_a_good_history_breaks_nothing() -> None:
    assert check(good()) == []


@pytest.mark.parametrize(("what", "invariants", "change"), BAD, ids=[what for what, *_ in BAD])
def test_a_bad_history_is_rejected(what: str, invariants: set[str], change: Change) -> None:
    history = good()
    change(history)
    assert {violation.invariant for violation in check(history)} == invariants


def test_every_invariant_has_a_bad_history() -> None:
    assert set().union(*(invariants for _, invariants, _ in BAD)) == RULES.keys()


def test_what_was_wiped_is_not_asked_for() -> None:
    history = good()
    drop_what_is_left(history)
    history.append({"kind": "store", "at": 5.0, "event": "lost_all"})
    assert check(history) == []
