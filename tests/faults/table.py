"""The table of one or more runs: `python -m tests.faults.table FOLDER ...`."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.faults.checker import Violation, check
from tests.faults.history import Entry, Fault
from tests.faults.run import Outcome

#: What a run leaves in the folder of each of its stacks.
FILE = "table.json"
HEAD = "| # | fault | phase | stack | injected | recovered after | violations |"
RULE = "|--:|---|---|---|--:|--:|--:|"

Line = dict[str, Any]


def lines_of(
    kind: str, outcomes: Iterable[Outcome], violations: Sequence[Violation], entries: Sequence[Entry]
) -> list[Line]:
    """What a run found, row by row; the whole of its history stands last, as row 0."""
    seen = first_seen(entries, violations)
    lines = [
        {
            "row": outcome.row.number,
            "fault": outcome.row.fault,
            "phase": outcome.row.phase,
            "stack": kind,
            "recovered_s": outcome.recovered_s,
            "violations": seen.get(outcome.row.number, 0) + (1 if outcome.failure else 0),
        }
        for outcome in outcomes
    ]
    whole = {"row": 0, "fault": "the whole history", "phase": "all", "stack": kind, "recovered_s": None}
    return [*lines, {**whole, "violations": len(violations)}]


def first_seen(entries: Sequence[Entry], violations: Iterable[Violation]) -> dict[int, int]:
    """Row → how many of the violations the history showed when that row had ended, and not before."""
    left, found = set(violations), {}
    for place, entry in enumerate(entries, start=1):
        if left and isinstance(entry, Fault) and entry.step == "end":
            new = left & set(check(entries[:place]))
            found[entry.row] = len(new)
            left -= new
    return found


def render(lines: Iterable[Line]) -> str:
    """Markdown: a line for each fault of each stack, with the longest of its recoveries."""
    groups: dict[tuple[Any, ...], list[Line]] = defaultdict(list)
    for line in lines:
        groups[line["row"] or 999, line["stack"], line["fault"], line["phase"]].append(line)
    return "\n".join([HEAD, RULE, *(_row(key, groups[key]) for key in sorted(groups))])


def _row(key: tuple[Any, ...], lines: list[Line]) -> str:
    number, stack, fault, phase = key
    times = [line["recovered_s"] for line in lines if line["recovered_s"] is not None]
    cells = (
        "" if number == 999 else number,
        fault,
        phase,
        stack,
        len(lines),
        f"{max(times):.1f} s" if times else "",
        sum(line["violations"] for line in lines),
    )
    return f"| {' | '.join(map(str, cells))} |"


def read(folder: Path) -> list[Line]:
    """The lines of all stacks of a run."""
    return [line for file in sorted(folder.glob(f"*/{FILE}")) for line in json.loads(file.read_text())]


if __name__ == "__main__":
    print(render(line for name in sys.argv[1:] for line in read(Path(name))))
