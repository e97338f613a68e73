"""The supervisor's side of the guard: keeps one running, and tells it who is to be ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable

from textgen.stack import guard
from textgen.stack.address import LockedFile
from textgen.stack.child import Child
from textgen.stack.plan import STAGES


class Guardian:
    """Owns the pipe to the guard; see `textgen.stack.guard` for what is said on it.

    Args:
        lock: Shared with the guard, which holds it until nothing of the stack is left.
    """

    def __init__(self, lock: LockedFile) -> None:
        self._lock = lock
        # The reading end is kept open here too, so that a write never fails while no guard reads.
        self._reader, self._writer = os.pipe()
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", guard.__name__],
            stdin=self._reader,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[self._lock.fileno()],
        )

    def expect(self, stage: int, group: int) -> None:
        """Have a process group ended when the supervisor dies. Called in the new process itself."""
        os.write(self._writer, guard.line("+", _guard_stage(stage), group))

    def forget(self, child: Child) -> None:
        """Take a child that has ended off the list."""
        os.write(self._writer, guard.line("-", _guard_stage(child.role.stage), child.pid))

    def keep_alive(self, children: Iterable[Child]) -> bool:
        """Replace a guard that died, and say whether that was needed."""
        if self._process.poll() is None:
            return False
        self._process = self._start()
        for child in children:
            self.expect(child.role.stage, child.pid)
        return True

    def dismiss(self) -> None:
        """Let the guard end; what is still on its list ends with it."""
        os.close(self._writer)
        self._process.wait()
        os.close(self._reader)


def _guard_stage(stage: int) -> int:
    # In an emergency all clients of the server go at once, and the server after them.
    return int(stage == STAGES["valkey"])
