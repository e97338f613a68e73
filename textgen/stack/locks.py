"""One stack per state directory, and one per user in the address file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textgen.address import address_file, running_address
from textgen.errors import ConfigurationError
from textgen.stack.address import LockedFile
from textgen.stack.errors import StackError

#: Seconds that the guard of a killed stack may need to end what was left.
PREDECESSOR_S = 15.0


def make_folder(state_dir: Path) -> None:
    """Make the state directory, for its owner only, unless it is there.

    Raises:
        ConfigurationError: It cannot be made or written to.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        usable = os.access(state_dir, os.W_OK | os.X_OK)
    except OSError as exc:
        raise ConfigurationError(f"--state-dir {state_dir} cannot be made: {exc.strerror}") from exc
    if not usable:
        raise ConfigurationError(f"--state-dir {state_dir} cannot be written to")


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
    #: Held by supervisor, guard and all that they start, so that two servers never write one file.
    processes: LockedFile
    #: Held by this user's first stack only.
    address: LockedFile

    def publish(self, content: Mapping[str, Any]) -> None:
        """Tell everybody what runs and how it is reached."""
        self.state.write(content)
        if self.address.held:
            self.address.write(content)

    def release(self) -> None:
        """Give everything up; the end of the process does the same."""
        for file in (self.address, self.state, self.processes):
            file.release()


def claim(state_dir: Path) -> StackLocks:
    """Make `state_dir` this process's own.

    Raises:
        StackError: Another stack runs on it, or its remains do not end.
    """
    locks = StackLocks(
        LockedFile(state_file(state_dir)),
        LockedFile(state_dir / "processes.lock"),
        LockedFile(address_file()),
    )
    if not locks.state.acquire():
        raise StackError(_refusal(state_dir))
    if not locks.processes.acquire(PREDECESSOR_S):
        locks.release()
        raise StackError(f"processes of the last stack on {state_dir} still run; end them, or try again")
    locks.address.acquire()
    return locks


def _refusal(state_dir: Path) -> str:
    running = running_stack(state_dir)
    pid = running.get("pids", {}).get("supervisor", "unknown")
    return (
        f"a stack already runs on {state_dir} (supervisor pid {pid}). "
        f"Stop it with `textgen down --state-dir {state_dir}`, or choose another --state-dir."
    )
