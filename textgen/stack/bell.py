"""What wakes the supervisor: a child that ended, or somebody who wants it to stop."""

from __future__ import annotations

import os
import select
import signal
import time
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds in which several signals are one request: a signal to a process group comes once from the
#: sender and once more from make.
SAME_REQUEST_S = 1.0


class Bell:
    """Takes the signals over and counts the requests to stop."""

    def __init__(self) -> None:
        #: Requests to stop so far; a second one means: at once.
        self.stops = 0
        self._last_stop = -SAME_REQUEST_S
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for signum in STOP_SIGNALS:
            # nohup's way to say that the end of the terminal is not to end the stack
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, self._on_stop)
        signal.signal(signal.SIGCHLD, self._on_child)

    def wait(self, timeout_s: float) -> None:
        """Return at the next signal, or when time is up."""
        if select.select([self._reader], [], [], max(0.0, timeout_s))[0]:
            os.read(self._reader, 4096)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last_stop > SAME_REQUEST_S:
            self.stops += 1
            self._last_stop = now

    def _on_child(self, signum: int, frame: FrameType | None) -> None:
        # Only so that the signal is delivered at all and rings.
        pass
