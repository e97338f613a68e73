"""The files through which a running stack is found: JSON, mode 0600, true while they are locked.

A lock dies with the processes that hold it, so that nothing stale is ever believed.
`textgen.settings.running_address` is the reader.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Seconds between two tries for a lock. A reader holds a shared one for less than that.
RETRY_S = 0.05
#: Seconds after which a lock counts as held by another stack, not by a passing reader.
PASSING_READER_S = 0.5


class LockedFile:
    """A file with an exclusive lock that this process holds until it releases it or ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this process holds the lock."""
        return self._fd is not None

    def fileno(self) -> int:
        """The descriptor that carries the lock; whoever inherits it holds the lock too."""
        if self._fd is None:
            raise ValueError(f"{self.path} is not locked")
        return self._fd

    def acquire(self, timeout_s: float = PASSING_READER_S) -> bool:
        """Take the lock, waiting `timeout_s` at the most, and say whether that worked."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600)
        deadline = time.monotonic() + timeout_s
        while not _lock(fd):
            if time.monotonic() >= deadline:
                os.close(fd)
                return False
            time.sleep(RETRY_S)
        os.ftruncate(fd, 0)  # of one that was killed
        self._fd = fd
        return True

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace the content in place by one write, so that readers never see half of it."""
        fd = self.fileno()
        data = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        os.pwrite(fd, data.ljust(os.fstat(fd).st_size), 0)

    def release(self) -> None:
        """Empty the file and give the lock up; harmless where it is not held."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
