"""Reads of tasks, Redis' clock, and the index entries that point to tasks. No status changes here."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import redis

from textgen.lifecycle import Record, Status
from textgen.store import keys, scripts
from textgen.store.answers import Control, as_record
from textgen.store.connection import translated
from textgen.store.positions import task_of


class Records:
    """The tasks in Redis, to look at.

    Args:
        client: A client that decodes answers to str.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._ahead_ms: float | None = None

    def now_ms(self) -> float:
        """Redis' time in milliseconds, reckoned from the last answer that carried it."""
        if self._ahead_ms is None:
            with translated():
                seconds, micros = self.client.time()
            self._ahead_ms = seconds * 1000 + micros / 1000 - time.monotonic() * 1000
        return time.monotonic() * 1000 + self._ahead_ms

    def get(self, task_id: str) -> Record | None:
        """Read a record, or None where there is none."""
        with translated():
            return as_record(self.client.get(keys.record(task_id)) or "")

    def control(self, task_id: str) -> Control | None:
        """Read the control fields, or None where there are none."""
        with translated():
            fields = self.client.hgetall(keys.state(task_id))
        return Control.of(fields) if fields and "status" in fields else None

    def send(self, commands: Iterable[tuple[Any, ...]]) -> None:
        """Send commands, in one round trip; see `scripts.send`."""
        with translated():
            scripts.send(self.client, commands)

    def count_statuses(self, limit: int) -> dict[str, int]:
        """How many of the newest `limit` tasks are in each status."""
        with translated():
            members = self.client.zrevrange(keys.CREATED, 0, limit - 1)
            pipe = self.client.pipeline(transaction=False)
            for member in members:
                pipe.hget(keys.state(task_of(member)), "status")
            found = pipe.execute()
        return {status.value: found.count(status.value) for status in Status}

    def schedule(self, task_id: str, in_s: float) -> None:
        """Have the janitor publish a task in `in_s` seconds; an earlier time of its own is kept."""
        with translated():
            self.client.zadd(keys.OUTBOX, {task_id: self.now_ms() + in_s * 1000}, lt=True)

    def is_scheduled(self, task_id: str) -> bool:
        """Whether a task has an outbox entry: the broker did not confirm its message yet."""
        with translated():
            return self.client.zscore(keys.OUTBOX, task_id) is not None

    def unschedule(self, task_id: str) -> None:
        """Remove a task's outbox entry: the broker has its message."""
        with translated():
            self.client.zrem(keys.OUTBOX, task_id)

    def trim(self, at_most: int) -> None:
        """Keep the newest `at_most` tasks in the index of all tasks."""
        with translated():
            self.client.zremrangebyrank(keys.CREATED, 0, -at_most - 1)

    def discard(self, task_id: str) -> None:
        """Forget the schedule of a task whose submit was refused. A move does so for what it ends."""
        with translated():
            pipe = self.client.pipeline(transaction=False)
            pipe.zrem(keys.WATCH, task_id)
            pipe.zrem(keys.OUTBOX, task_id)
            pipe.execute()
