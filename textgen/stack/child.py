"""One process of the stack: how it is started, watched and ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

#: Bytes that a log file may have before it is moved aside (to `.1`; one such is kept).
LOG_BYTES = 10 * 1024 * 1024
#: Bytes from the end of a log that are searched for its last lines.
TAIL_BYTES = 16 * 1024


@dataclass(frozen=True)
class Role:
    """What a process is for and how it is run."""

    name: str
    command: tuple[str, ...]
    #: Order of stopping; lower numbers stop first.
    stage: int
    #: Seconds between SIGTERM and SIGKILL.
    grace_s: float


class Child:
    """A process with a session, and so a process group, of its own."""

    def __init__(self, role: Role, process: subprocess.Popen[bytes]) -> None:
        self.role = role
        self._process = process
        self.started_at = datetime.now(UTC)
        self._started = time.monotonic()

    @classmethod
    def start(
        cls,
        role: Role,
        env: Mapping[str, str],
        log_file: Path,
        lock: int,
        report: Callable[[int], None],
    ) -> Child:
        """Start `role`, its output going to `log_file`.

        Args:
            lock: Descriptor of a lock that the process holds, too, until it has ended.
            report: Called in the new process with its process group before the program runs.
        """
        with open_log(log_file) as log:
            process = subprocess.Popen(
                role.command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock],
                # Safe here: the supervisor has no threads.
                preexec_fn=lambda: report(os.getpid()),
            )
        return cls(role, process)

    @property
    def pid(self) -> int:
        """The process id, which is its group's too."""
        return self._process.pid

    @property
    def lived_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to end."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill_group(self) -> None:
        """End it and every process that it started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Wait for a process that was killed."""
        self._process.wait()


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def open_log(path: Path) -> IO[bytes]:
    """Open a log to append to, for its owner only, with what is too long moved aside."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    bound_log(path)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def bound_log(path: Path) -> None:
    """Move a log that has grown too long aside. Its writer appends, so it goes on at the start."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES:
            shutil.copy(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)


def last_lines(path: Path, count: int = 15) -> str:
    """The end of a log."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])
    return ""
