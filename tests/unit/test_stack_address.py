"""The files through which a running stack is found."""

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from textgen.address import running_address
from textgen.errors import ConfigurationError
from textgen.stack.address import LockedFile
from textgen.stack.errors import StackError
from textgen.stack.locks import StackLocks, claim, make_folder, running_stack


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "address.json"


def test_an_address_is_believed_only_while_its_file_is_locked(path: Path) -> None:
    file = LockedFile(path)
    assert file.acquire()
    file.write({"web": "http://127.0.0.1:1"})
    assert running_address(path) == {"web": "http://127.0.0.1:1"}
    file.release()
    assert running_address(path) == {}


def test_a_shorter_address_replaces_a_longer_one_in_place(path: Path) -> None:
    file = LockedFile(path)
    file.acquire()
    file.write({"web": "x" * 1000})
    file.write({"web": "y"})
    assert running_address(path) == {"web": "y"}
    file.release()


def test_what_a_killed_stack_left_is_not_shown_by_the_next_one(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"web": "stale"}))
    file = LockedFile(path)
    file.acquire()
    assert running_address(path) == {}
    file.release()


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    path.parent.mkdir()
    path.touch(mode=0o644)
    file = LockedFile(path)
    file.acquire()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.release()


def test_a_lock_is_held_once(path: Path) -> None:
    first, second = LockedFile(path), LockedFile(path)
    assert first.acquire()
    assert not second.acquire(timeout_s=0.0)
    first.release()
    assert second.acquire()
    second.release()


@pytest.fixture
def claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], StackLocks]]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    held: list[StackLocks] = []

    def claim_one(name: str) -> StackLocks:
        held.append(claim(tmp_path / name))
        return held[-1]

    yield claim_one
    for locks in held:
        locks.release()


def test_a_second_stack_on_a_state_directory_is_refused(
    claimed: Callable[[str], StackLocks], tmp_path: Path
) -> None:
    claimed("a").publish({"pids": {"supervisor": 4711}})
    with pytest.raises(StackError, match=r"already runs on .*/a \(supervisor pid 4711\)"):
        claimed("a")
    assert running_stack(tmp_path / "a")["pids"] == {"supervisor": 4711}


def test_a_stack_elsewhere_leaves_the_address_file_to_the_first(
    claimed: Callable[[str], StackLocks], tmp_path: Path
) -> None:
    claimed("a").publish({"web": "first"})
    claimed("b").publish({"web": "second"})
    assert running_address() == {"web": "first"}
    assert running_stack(tmp_path / "b") == {"web": "second"}


def test_a_state_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigurationError, match=r"--state-dir .*/file/stack cannot be made: Not a directory"
    ):
        make_folder(tmp_path / "file" / "stack")
