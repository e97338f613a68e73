"""The matrix is whole, a row that it does not have is refused, and each sabotage still breaks something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import sabotage, table
from tests.faults.checker import check
from tests.faults.histories import PLAIN, START, read
from tests.faults.history import Entry, Fault
from tests.faults.run import chosen
from tests.faults.world import ROOT

#: The rows that apply where broker and store are one embedded server.
EMBEDDED = {*range(1, 16), *range(29, 36), *range(39, 43), 46, 47}


def numbers(kind: str) -> set[int]:
    return {row.number for row in chosen(kind, False, set())}


def test_every_row_of_the_matrix_is_done() -> None:
    assert numbers("rabbitmq") >= set(range(1, 51))
    assert numbers("embedded") >= EMBEDDED


@pytest.mark.parametrize("given", [["--rows", "99"], ["--rows", "4,16", "--stack", "embedded"]])
def test_a_row_that_would_not_run_fails_the_run(given: list[str]) -> None:
    command = [sys.executable, "-m", "tests.faults", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no such rows in this run" in done.stderr


@pytest.mark.parametrize("name", sabotage.PATCHES)
def test_each_sabotage_still_finds_what_it_breaks(name: str, tmp_path: Path) -> None:
    folder = sabotage.apply(name, tmp_path / name)
    for file in {patch.file for patch in sabotage.PATCHES[name]}:
        assert (folder / file).read_text() != (ROOT / file).read_text()


def test_each_sabotage_has_rows_that_notice_it() -> None:
    assert sabotage.ROWS.keys() == sabotage.PATCHES.keys()
    for rows in sabotage.ROWS.values():
        assert {int(row) for row in rows.split(",")} <= numbers("rabbitmq")


def test_a_violation_is_counted_at_the_row_that_showed_it_first() -> None:
    def fault(row: int, step: str, at: float) -> Fault:
        return Fault(START + at, row, "fault", step)

    first: list[Entry] = [fault(4, "begin", 10), fault(4, "end", 20)]
    second: list[Entry] = [fault(5, "begin", 30), read(None, 35), fault(5, "end", 40)]
    entries = [*PLAIN, *first, *second]
    assert table.first_seen(entries, check(entries)) == {4: 0, 5: 1}
    assert table.first_seen([*PLAIN, *first], []) == {}
