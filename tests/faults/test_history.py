"""What is written to a history is read from it, and the checker's command says whether it is good."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.faults.examples import NOISE
from tests.faults.histories import (
    GOOD,
    ttl,
    with_plain,
    write,
)
from tests.faults.history import (
    Entry,
    History,
    Leak,
)

HISTORIES: dict[str, list[Entry]] = {"good": GOOD, **{what: with_plain(NOISE[what]) for what in NOISE}}


@pytest.mark.parametrize("entries", HISTORIES.values(), ids=HISTORIES)
def test_what_was_written_is_read(tmp_path: Path, entries: list[Entry]) -> None:
    history = History(tmp_path / "history.jsonl")
    for entry in entries:
        write(history, entry)
    assert list(history.read()) == entries


def test_a_field_that_is_not_known_is_passed_over(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.write("leak", at=1.0, where="worker.log", colour="red")
    assert list(history.read()) == [Leak(1.0, "worker.log")]


def test_a_kind_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'gate'"):
        History(tmp_path / "history.jsonl").write("gate", at=1.0)


def test_threads_share_a_history(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    long = "x" * 20_000

    def repeatedly() -> None:
        for _ in range(50):
            history.write("leak", at=1.0, where=long)

    threads = [threading.Thread(target=repeatedly) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(history.read()) == [Leak(1.0, long)] * 400


@pytest.mark.parametrize(("entries", "code"), [(GOOD, 0), (with_plain([ttl(-1)]), 1)], ids=["good", "bad"])
def test_the_command_ends_with_the_verdict(tmp_path: Path, entries: list[Entry], code: int) -> None:
    history = History(tmp_path / "history.jsonl")
    for entry in entries:
        write(history, entry)
    command = [sys.executable, "-m", "tests.faults.checker", str(history.path)]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout.startswith("I6: task:id-op1 never expires" if code else "")
    assert len(ended.stdout.splitlines()) == code
