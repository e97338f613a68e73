"""One stack per state directory, and one per user in the address file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textgen.settings import address_file, running_address
from textgen.stack.address import LockedFile
from textgen.stack.errors import StackError

#: Seconds that the guard of a killed stack may need to end what was left.
PREDECESSOR_S = 15.0


def state_file(state_dir: Path) -> Path:
    """Where the stack of `state_dir` says what it runs."""
    return state_dir / "stack.json"


def running_stack(state_dir: Path) -> dict[str, Any]:
    """What runs on `state_dir`; `{}` where nothing does."""
    return running_address(state_file(state_dir))


@dataclass(frozen=True)
class StackLocks:
    """The files that a running supervisor holds."""

    #: Held by the supervisor alone, so that it tells whether one runs.
    state: LockedFile
    #: Held by supervisor and guard, so that no stack starts before the last one is gone.
    guard: LockedFile
    #: Held by this user's first stack only.
    address: LockedFile

    def publish(self, content: Mapping[str, Any]) -> None:
        """Tell everybody what runs and how it is reached."""
        self.state.write(content)
        if self.address.held:
            self.address.write(content)

    def release(self) -> None:
        """Give everything up; the end of the process does the same."""
        for file in (self.address, self.state, self.guard):
            file.release()


def claim(state_dir: Path) -> StackLocks:
    """Make `state_dir` this process's own.

    Raises:
        StackError: Another stack runs on it, or its remains do not end.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    locks = StackLocks(
        LockedFile(state_file(state_dir)), LockedFile(state_dir / "guard.lock"), LockedFile(address_file())
    )
    if not locks.state.acquire():
        raise StackError(_refusal(state_dir))
    if not locks.guard.acquire(PREDECESSOR_S):
        locks.release()
        raise StackError(f"processes of the last stack on {state_dir} are still being ended; try again")
    locks.address.acquire()
    return locks


def _refusal(state_dir: Path) -> str:
    running = running_stack(state_dir)
    pid = running.get("pids", {}).get("supervisor", "unknown")
    return (
        f"a stack already runs on {state_dir} (supervisor pid {pid}). "
        f"Stop it with `textgen down --state-dir {state_dir}`, or choose another --state-dir."
    )
