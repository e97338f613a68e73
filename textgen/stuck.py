"""Finds PENDING tasks that no lane holds any more: their message was lost with a queue or purged.

A lane that is empty on two looks a lease apart holds nothing that is ready. What is still PENDING
and due then is published again; if a worker held the message after all, the claim sorts it out.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textgen import broker, lanes
from textgen.lifecycle import Record, Status, time_ms
from textgen.settings import Settings
from textgen.store import Store, keys, meter, schedules
from textgen.store.connection import translated

if TYPE_CHECKING:
    from celery import Celery

#: Tasks read from the index in one call.
PAGE = 1000


class Stuck:
    """Looks for such tasks once a lease.

    Args:
        app: Whose broker.
        settings: The settings.
        store: Where the tasks are.
    """

    def __init__(self, app: Celery, settings: Settings, store: Store) -> None:
        self.app = app
        self.settings = settings
        self.store = store
        self._empty: set[str] = set()
        self._next_look = time.monotonic() + settings.lease_s

    def look(self) -> None:
        """Look, if a lease has passed since the last look.

        Raises:
            BrokerUnavailable, StoreUnavailable: One of them did not answer.
        """
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + self.settings.lease_s
        depths = broker.depths(self.app, self.settings)
        queues = (lane.queue(self.settings) for lane in lanes.every(self.settings))
        empty = {name for name in queues if depths[name] == 0}
        twice, self._empty = empty & self._empty, empty
        if twice:
            self._publish_again(twice)

    def _publish_again(self, queues: set[str]) -> None:
        for task_id in self._watched():
            control, record = self.store.control(task_id), self.store.get(task_id)
            if control is None or record is None or record.status is not Status.PENDING:
                continue
            quiet_since = self.store.now_ms() - 2 * self.settings.lease_s * 1000
            waits_since = max(control.due_ms, control.parked_ms, time_ms(record.updated_at or ""))
            is_lost = lanes.queue_of(record, self.settings) in queues and waits_since <= quiet_since
            if is_lost and not self._is_waiting(record):
                self.store.schedule(task_id, 0.0)
                schedules.count(self.store, "published again")

    def _is_waiting(self, record: Record) -> bool:
        return bool(self.settings.owner_share) and meter.is_waiting(self.store, record)

    def _watched(self) -> list[str]:
        with translated():
            return [task_id for task_id, _ in self.store.client.zscan_iter(keys.WATCH, count=PAGE)]
