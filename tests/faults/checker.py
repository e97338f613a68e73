"""Checks a history against the invariants that the system promises to keep under faults.

`python -m tests.faults.checker HISTORY` prints each violation, and ends with 1 if there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.checks import endings, reads, stack, submits
from tests.faults.checks.facts import Facts
from tests.faults.history import Entry, History

INVARIANTS: dict[str, Callable[[Facts], Iterator[str]]] = {
    "I1": endings.every_accepted_task_ends_once,
    "I2": reads.a_status_never_goes_back,
    "I3": reads.a_result_is_the_same_for_all,
    "I4": endings.nothing_accepted_is_lost,
    "I5": reads.what_was_accepted_can_be_read,
    "I6": stack.every_key_expires,
    "I7": endings.nothing_waits_at_the_end,
    "I8": submits.what_was_refused_has_no_effect,
    "I9": submits.every_submit_is_answered_in_time,
    "I10": submits.a_key_is_one_task,
    "I11": reads.nobody_reads_what_is_anothers,
    "I12": stack.no_secret_is_seen,
    "I13": stack.it_recovers_by_itself,
    "I14": stack.attempts_are_bounded,
    "I15": stack.nothing_grows_without_bound,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that a history breaks."""

    #: `I1` to `I15`.
    invariant: str
    what: str


def check(entries: Iterable[Entry]) -> list[Violation]:
    """All violations in a history."""
    facts = Facts(entries)
    return [Violation(name, what) for name, holds in INVARIANTS.items() for what in holds(facts)]


def main(path: str) -> int:
    """Check the history in a file; returns the exit code."""
    violations = check(History(Path(path)).read())
    for violation in violations:
        print(f"{violation.invariant}: {violation.what}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
