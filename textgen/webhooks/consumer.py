"""How a worker takes deliveries: on a channel and with threads of their own, beside its pool.

A receiver that hangs holds one of these threads, never a slot in which text is generated; and a pool
that is full keeps no delivery waiting.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from typing import Any

from celery import bootsteps
from celery.concurrency.thread import TaskPool
from celery.exceptions import TaskRevokedError
from celery.worker.strategy import default
from kombu import Consumer

from textgen import queues
from textgen.celery import app
from textgen.settings import get_settings


@lru_cache(maxsize=4)
def _threads(pid: int, green: type | None) -> Any:
    """The pool of this process's deliveries: greenlets where the worker's own are, threads elsewhere.

    Args:
        pid: Of this process.
        green: The class of a pool of greenlets: an executor of patched threads leaves work undone there.
    """
    pool = (green or TaskPool)(limit=max(1, get_settings().webhook_senders))
    if green:
        pool.on_start()
    return pool


def _green(consumer: Any) -> type | None:
    return type(consumer.pool) if consumer.pool.is_green else None


class _Beside:
    """Celery's consumer, but for its pool and the semaphore that guards the places in it."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.pool = _threads(os.getpid(), _green(consumer))

    def on_task_request(self, request: Any) -> None:
        """Run a request; under prefork, Celery's own would take a place that nothing gives back."""
        with suppress(TaskRevokedError):
            request.execute_using_pool(self.pool)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def beside_generation(task: Any, app: Any, consumer: Any, **options: Any) -> Any:
    """Celery's own strategy for a task, which then runs in the threads of this module."""
    return default(task, app, _Beside(consumer), **options)


class Deliveries(bootsteps.ConsumerStep):
    """Consumes the queue of deliveries, unless the settings leave them to other workers."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, c: Any, **options: Any) -> None:
        super().__init__(c, **options)
        self.consumer = c

    def stop(self, c: Any) -> None:
        """Stop consuming; a connection that is lost has taken its channels along."""
        if c.connection is not None:
            super().stop(c)

    def shutdown(self, c: Any) -> None:
        """Begin no further delivery; those that go on have their time-outs."""
        if c.connection is not None:
            super().shutdown(c)
        if not _green(c):
            _threads(os.getpid(), None).executor.shutdown(wait=False, cancel_futures=True)

    def get_consumers(self, channel: Any) -> list[Consumer]:
        settings = get_settings()
        if not settings.webhook_senders:
            return []
        channel.basic_qos(0, settings.webhook_senders, False)
        handle = self.consumer.create_task_handler()
        return [
            Consumer(channel, [queues.webhooks(settings)], on_message=handle, accept=["json"], no_ack=False)
        ]


app.steps["consumer"].add(Deliveries)
