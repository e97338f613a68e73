"""Child processes that tests start: each in a session of its own, ended with the test process."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

#: Seconds between two looks at a condition.
POLL_S = 0.02


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Return as soon as `condition()` is true; raise AssertionError naming `what` when time is up."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(POLL_S)


def free_port() -> int:
    """A TCP port that nothing listens on, below the range from which outgoing connections take theirs."""
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("found no free port between 20000 and 32000")


def listens(port: int) -> bool:
    """Whether something accepts connections on this port of the loopback address."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def require(program: str, package: str) -> str:
    """The path of `program`; where it is missing, the test fails and says what to install."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if not found:
        raise RuntimeError(f"{program} is needed by these tests: install it (Debian: apt install {package})")
    return found


class Process:
    """A program with its output in a file. A context manager: started on entry, ended on exit.

    The child gets SIGKILL when the thread that started it ends (PR_SET_PDEATHSIG), so that not even
    `kill -9` of the test process leaves it behind: start it from the main thread. Signals go to its
    whole process group, as ending a container would.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log_file: Path, ready: str = ""
    ) -> None:
        self.command, self.env, self.cwd, self.log_file = list(command), dict(env), cwd, log_file
        #: Text in the log that means the program serves.
        self.ready = ready
        self._popen: subprocess.Popen[bytes] | None = None
        #: Where in the log the present run began.
        self._began = 0

    def start(self) -> Self:
        tied = [require("setpriv", "util-linux"), "--pdeathsig", "KILL", "--", *self.command]
        with self.log_file.open("ab") as log:
            self._began = log.tell()
            self._popen = subprocess.Popen(
                tied,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._running.poll()

    @property
    def is_alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._popen is None:
            raise RuntimeError("the process was not started")
        return self._popen

    def log(self) -> str:
        """All that it wrote so far, in every run."""
        return self.log_file.read_text(errors="replace")

    def wait_ready(self, timeout_s: float = 60) -> Self:
        """Wait until the present run has written its `ready` text."""
        self.wait_for_log(self.ready, timeout_s)
        return self

    def wait_for_log(self, text: str, timeout_s: float = 20) -> None:
        """Wait until the present run has written `text`; fail at once if it ends before."""

        def written() -> bool:
            found = text.encode() in self.log_file.read_bytes()[self._began :]
            if not found and not self.is_alive:
                raise AssertionError(f"{self.command} ended ({self.returncode}):\n{self.log()[-4000:]}")
            return found

        try:
            wait_until(written, timeout_s, f"{text!r} in {self.log_file}")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log()[-4000:]}") from None

    def wait(self, timeout_s: float = 30) -> int:
        """Wait until it has ended; returns the exit status."""
        return self._running.wait(timeout_s)

    def signal(self, number: int) -> None:
        """Send a signal to the program alone."""
        self._running.send_signal(number)

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError):  # all of the group have ended
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """End the program and its children with SIGKILL."""
        if self._popen is not None:
            self._signal_group(signal.SIGKILL)
            self.wait()

    def stop(self, timeout_s: float = 20) -> int:
        """Ask it to end (SIGTERM); past the time, SIGKILL and a TimeoutExpired error."""
        if self.is_alive:
            self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout_s)
        finally:
            self.kill()

    def pause(self) -> None:
        """Freeze it (SIGSTOP)."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_group(signal.SIGCONT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()
