"""A task's event log as all followers in this process share it: each new entry is read once.

Redis stays the truth. What stands here is the newest part of the log, for as long as somebody follows
the task; whoever is further behind reads the log itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import takewhile

from textgen.errors import StoreUnavailable
from textgen.lifecycle import Event
from textgen.store import log
from textgen.store.tasks import Store

#: Entries of one log kept in memory, for the followers that are nearly up to date.
KEPT = 256
#: Seconds for which the answer "the store is away" serves all followers of a task.
AWAY_S = 1.0


def order(position: str | None) -> tuple[int, int]:
    """What positions in a log sort by; None is its beginning."""
    sequence, _, attempt = (position or "0-0").partition("-")
    return int(sequence), int(attempt)


class Feed:
    """The newest entries of one log.

    Args:
        store: Where the log is.
        task_id: Whose log.
        reads: Held during each read, so that followers never use up the process's connections.
    """

    def __init__(self, store: Store, task_id: str, reads: threading.Semaphore) -> None:
        self._store, self._task_id, self._reads = store, task_id, reads
        self._lock = threading.Lock()
        self._entries: deque[Event] = deque()
        #: The position behind which `_entries` begins; unknown before the first read.
        self._base: str | None = None
        self._is_based = False
        self._is_stale = True
        self._read_at = self._away_since = float("-inf")

    def expire(self, age_s: float = 0.0) -> None:
        """Have the next call read the log, unless it was read less than `age_s` seconds ago."""
        if time.monotonic() - self._read_at >= age_s:
            self._is_stale = True

    def restart(self, newest: str | None) -> None:
        """Forget all if it goes beyond `newest`, the log's last entry now: Redis has lost that log."""
        with self._lock:
            if order(self._last) > order(newest):
                self._entries.clear()
                self._is_based, self._is_stale = False, True

    def after(self, position: str | None) -> list[Event]:
        """The entries behind `position`, in order; a part of them if they are many.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        with self._lock:
            if not self._is_based:
                self._base, self._is_based = position, True
            while order(position) >= order(self._base):
                newer = takewhile(lambda event: order(event.id) > order(position), reversed(self._entries))
                found = [*newer][::-1]
                if found or not self._is_stale:
                    return found
                self._refresh()  # which may leave behind what this follower lacks
        with self._reads:
            return log.read(self._store, self._task_id, position)

    @property
    def _last(self) -> str | None:
        return self._entries[-1].id if self._entries else self._base

    def _refresh(self) -> None:
        if time.monotonic() - self._away_since < AWAY_S:
            raise StoreUnavailable("Redis did not answer a moment ago")
        self._is_stale, self._read_at = False, time.monotonic()
        try:
            with self._reads:
                found = log.read(self._store, self._task_id, self._last, KEPT)
        except StoreUnavailable:
            self._is_stale, self._away_since = True, time.monotonic()
            raise
        if len(found) == KEPT:  # not by `|=`, which would undo an `expire` in between
            self._is_stale = True
        self._entries.extend(found)
        while len(self._entries) > KEPT:
            self._base = self._entries.popleft().id
