"""Publishes the deliveries that are due: the janitor's part in webhooks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from textgen import broker, queues
from textgen.errors import BrokerUnavailable
from textgen.settings import Settings
from textgen.store import Store, deliveries
from textgen.store.schedules import Schedule
from textgen.webhooks import tasks

if TYPE_CHECKING:
    from celery import Celery

log = structlog.get_logger(__name__)

#: Seconds, beyond the time that a try may take, after which one is published again that nobody ended.
AGAIN_S = 20.0
#: Messages in the queue from which on nothing is added to it, and seconds between two looks at it.
ENOUGH, LOOK_S = 1000, 5.0


class Dispatcher:
    """Publishes due deliveries.

    Args:
        app: Whose broker.
        settings: The settings.
        store: Where the deliveries are.
        schedule: When each is due.
    """

    def __init__(self, app: Celery, settings: Settings, store: Store, schedule: Schedule) -> None:
        self.app = app
        self.settings = settings
        self.store = store
        self.schedule = schedule
        self._next_look = 0.0
        self._is_full = False

    def publish(self, delivery_id: str, score: str) -> bool:
        """Have a worker try a delivery that is due; False if the broker cannot take it."""
        if not deliveries.is_pending(self.store, delivery_id):
            self.schedule.settle(delivery_id, score)
            return True
        again_s = self.settings.webhook_timeout_s + AGAIN_S
        self.schedule.postpone(delivery_id, self.store.now_ms() + again_s * 1000)
        try:
            if not self._has_enough():
                tasks.publish(delivery_id)
        except BrokerUnavailable as exc:
            log.warning("webhook not published", delivery=delivery_id, reason=str(exc))
            return False
        return True

    def _has_enough(self) -> bool:
        """Whether the queue is full of deliveries that no worker takes."""
        if time.monotonic() >= self._next_look:
            name = queues.webhooks(self.settings).name
            self._is_full = broker.depth(self.app, self.settings, name) >= ENOUGH
            self._next_look = time.monotonic() + LOOK_S
        return self._is_full
