"""Submits that could not be taken back at once, because the store was away with the broker.

Their submitters were told that nothing was queued. Until that is so, this process goes on trying; it has
as long as an entry of the outbox stays untouched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from textgen.errors import StoreUnavailable

log = structlog.get_logger(__name__)

#: Seconds between two tries, and after which they end.
PAUSE_S, PATIENCE_S = 0.2, 60.0


class Withdrawals:
    """Takes submits back in the background.

    Args:
        take_back: Takes back the submit of this id; raises StoreUnavailable while it cannot.
    """

    def __init__(self, take_back: Callable[[str], object]) -> None:
        self._take_back = take_back
        #: Task id → when to give up.
        self._open: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, task_id: str) -> None:
        """Have a submit taken back as soon as the store is there."""
        with self._lock:
            is_idle = not self._open
            self._open[task_id] = time.monotonic() + PATIENCE_S
        if is_idle:
            threading.Thread(target=self._work, name="withdrawals", daemon=True).start()

    def _work(self) -> None:
        while self._open:
            time.sleep(PAUSE_S)
            for task_id, give_up in list(self._open.items()):
                try:
                    self._take_back(task_id)
                except StoreUnavailable:
                    if time.monotonic() < give_up:
                        break  # the others would wait for the same
                    log.error("a refused submit may run", task_id=task_id)
                with self._lock:
                    del self._open[task_id]
