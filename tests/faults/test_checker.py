"""The checker can fail: each invariant has histories that break it, and small noise breaks none."""

from __future__ import annotations

import random
import time

import pytest

from tests.faults.checker import INVARIANTS, check
from tests.faults.examples import BAD, NOISE
from tests.faults.histories import (
    GOOD,
    META,
    PLAIN,
    START,
    fault,
    final,
    read,
    record,
    run,
    store,
    submit,
    with_plain,
    without,
)
from tests.faults.history import (
    Entry,
    Meta,
    Record,
)

CASES = [(name, what, entries) for name, cases in BAD.items() for what, entries in cases]


def names(entries: list[Entry]) -> set[str]:
    return {violation.invariant for violation in check(entries)}


@pytest.mark.parametrize("history", [GOOD, PLAIN], ids=["good", "plain"])
def test_a_good_history_is_accepted(history: list[Entry]) -> None:
    assert check(history) == []


@pytest.mark.parametrize("what", NOISE)
def test_noise_is_accepted(what: str) -> None:
    assert check(with_plain(NOISE[what])) == []


@pytest.mark.parametrize(("name", "what", "entries"), CASES, ids=[f"{n}: {what}" for n, what, _ in CASES])
def test_a_bad_history_is_rejected(name: str, what: str, entries: list[Entry]) -> None:
    assert name in names(with_plain(entries))


def test_every_invariant_has_a_bad_history() -> None:
    assert BAD.keys() == INVARIANTS.keys()
    assert list(INVARIANTS) == [f"I{n}" for n in range(1, 16)]


def test_what_was_accepted_before_all_was_lost_is_not_asked_for() -> None:
    assert check([META, submit(), run(), store("lost_all", 5.0), read(None, 6.0), final({})]) == []


def test_a_violation_names_task_request_and_time() -> None:
    (violation,) = check(with_plain([read(None, 30.0)]))
    assert violation.invariant == "I5"
    assert all(part in violation.what for part in ("id-op1", "op1", f"{START + 30:.3f}"))


def test_a_history_without_its_terms_is_refused() -> None:
    with pytest.raises(ValueError, match="no meta entry"):
        check(without(Meta))


def test_a_long_history_is_checked_in_seconds() -> None:
    """50,000 tasks with two reads and two lines of the engine each, shuffled, and 100 faults."""
    entries: list[Entry] = []
    for n in range(100):
        entries += (fault("begin", n * 9.0), fault("end", n * 9.0 + 8))
    records: dict[str, Record] = {}
    for n in range(50_000):
        at, op = n / 50, f"op{n}"
        seen = record(ended=at + 1, owner="ann", op=op)
        records[f"id-{op}"] = seen
        entries += [submit(op, at, key=op), run(at=at + 0.2, op=op), run("end", at + 0.9, op)]
        entries += [read(record("PROCESSING"), at + 0.5, id=f"id-{op}"), read(seen, at + 2, id=f"id-{op}")]
    random.Random(1).shuffle(entries)
    began = time.process_time()
    assert check([META, *entries, final(records, at=START + 2000)]) == []
    assert time.process_time() - began < 20
