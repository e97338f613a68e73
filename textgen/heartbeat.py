"""The worker's heartbeat: renews the leases of all attempts that run in this process.

One daemon thread per process (a greenlet under gevent). It is also who ends an attempt whose engine
hangs: the record is FAILED at the limit while the engine may still sit in its call.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from textgen.errors import StoreUnavailable
from textgen.lifecycle import Failure, Record
from textgen.logs import outline
from textgen.outcomes import ATTEMPT_HUNG, DEADLINE, failed, with_partial
from textgen.store import Store
from textgen.store.answers import Moved, Transition, Verdict

log = structlog.get_logger(__name__)

#: Renewals in the time of one lease.
BEATS_PER_LEASE = 4
#: Seconds that an attempt which was ended from here may take to notice, before a pool's child
#: process that cannot notice is given up.
NOTICE_S = 3.0
#: How a transition that was refused → why the attempt must stop; else it is another's.
_VERDICTS = {Moved.ABSENT: Verdict.ABSENT, Moved.CANCELLED: Verdict.CANCELLED}


@dataclass(eq=False)
class Running:
    """An attempt that runs in this process."""

    record: Record
    token: str
    limit_s: float
    started: float = field(default_factory=time.monotonic)
    #: When text that was written last renewed the lease.
    renewed: float = float("-inf")
    #: Why the attempt must stop, once it must.
    verdict: Verdict = Verdict.OK
    #: The error that was recorded from here, if the attempt was ended from here.
    ended: Failure | None = None
    ended_at: float = 0.0
    #: Whether it is done itself, and only what it does for others is left.
    is_over: bool = False
    #: Called when the attempt is given up because its engine hangs.
    hung: Callable[[], None] | None = None
    #: Brings back a task that Redis has lost; False if it is another's now.
    restore: Callable[[], bool] | None = None
    #: Called at each beat of the heartbeat, whatever has become of the attempt.
    on_beat: Callable[[], None] | None = None

    @property
    def overrun_s(self) -> float:
        """Seconds by which the attempt has run longer than it may; below 0 while it may run."""
        return time.monotonic() - self.started - self.limit_s


class Heartbeat:
    """Keeps the attempts of one process alive.

    Args:
        store: Where the leases are.
        margin_s: Seconds past its limit in which an attempt is to notice by itself.
        abandon: Called when an attempt neither ends nor notices that it was ended; in a pool's
            child process it ends the process, elsewhere there is nothing to be done.
    """

    def __init__(
        self, store: Store, margin_s: float = 10.0, abandon: Callable[[], None] | None = None
    ) -> None:
        self.store = store
        self.margin_s = margin_s
        self.abandon = abandon
        self._running: set[Running] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, running: Running) -> Iterator[Running]:
        """Keep the lease of `running` while the block runs."""
        with self._lock:
            self._running.add(running)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
                self._thread.start()
        try:
            yield running
        finally:
            running.is_over = True
            with self._lock:
                self._running.discard(running)

    def _beat(self) -> None:
        while True:
            time.sleep(self.store.lease_s / BEATS_PER_LEASE)
            with self._lock:
                attempts = list(self._running)
            self.beat(attempts)

    def beat(self, attempts: list[Running]) -> None:
        """Look after attempts: all leases first, then what each does for others, which may take longer."""
        for running in attempts:
            self._guarded(running, self._look_after)
        for running in attempts:
            self._guarded(running, lambda one: one.on_beat and one.on_beat())

    def _guarded(self, running: Running, act: Callable[[Running], None]) -> None:
        try:
            act(running)
        except Exception as exc:  # noqa: BLE001 - what is wrong with one attempt must not end the others' leases
            log.error("heartbeat stumbled", task_id=running.record.task_id, where=outline(exc))

    def _look_after(self, running: Running) -> None:
        if running.is_over:
            return
        if running.ended_at and self.abandon and time.monotonic() - running.ended_at > NOTICE_S:
            self.abandon()
        if running.ended:
            return
        try:
            if running.overrun_s > self.margin_s and not running.ended_at:
                self.end(running, ATTEMPT_HUNG)
                return
            if time.monotonic() - running.renewed < self.store.lease_s / BEATS_PER_LEASE:
                return
            running.verdict = self.store.renew(running.record.task_id, running.token)
            if running.verdict is Verdict.OVERDUE:
                self.end(running, DEADLINE)
            elif running.verdict is Verdict.ABSENT and running.restore and not running.is_over:
                running.restore()
            elif running.verdict in (Verdict.CANCELLED, Verdict.FENCED):
                running.ended_at = running.ended_at or time.monotonic()
        except StoreUnavailable as exc:
            log.warning("lease not renewed", task_id=running.record.task_id, reason=str(exc))

    def end(self, running: Running, error: Failure) -> None:
        """Record that an attempt failed for good, if that is still its to say, and let it know."""
        moved = self._fail(running, error)
        if moved.outcome is Moved.ABSENT and running.restore and running.restore():
            moved = self._fail(running, error)
        ours = moved.record is not None and moved.record.attempt == running.record.attempt
        if moved.outcome is Moved.OK or (moved.outcome is Moved.ENDED and ours):
            running.ended = error
        else:
            running.verdict = _VERDICTS.get(moved.outcome, Verdict.FENCED)
        running.ended_at = running.ended_at or time.monotonic()
        if error is ATTEMPT_HUNG:
            self._note_hung(running)

    def _note_hung(self, running: Running) -> None:
        if running.hung:
            running.hung()
        if self.abandon is None:
            with self._lock:
                held = sum(one.ended is ATTEMPT_HUNG for one in self._running)
            log.error("engine hangs and keeps its slot", task_id=running.record.task_id, slots_lost=held)

    def _fail(self, running: Running, error: Failure) -> Transition:
        ended = with_partial(self.store, failed(running.record, error))
        return self.store.move(ended, token=running.token)


def give_up_child() -> Callable[[], None] | None:
    """What ends a hanging attempt where only the end of the process can: in a prefork child."""
    from billiard import current_process

    if current_process().name == "MainProcess":
        return None
    return lambda: os._exit(70)
