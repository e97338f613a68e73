"""One connection per process on which all waits of that process hear of changes.

Every change of a task is announced on the channel named like its event log. A listener is woken by
any announcement, and by a lost connection; it then reads the store to see what has changed.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from textgen.errors import UnknownTask
from textgen.lifecycle import Event, Record
from textgen.store import keys, log
from textgen.store.connection import translated
from textgen.store.tasks import Store

#: Seconds between two looks at the store while nothing is announced: a net for lost announcements.
LOOK_S = 5.0
#: Seconds that a subscription may take to be confirmed before the store is read all the same.
CONFIRM_S = 2.0
#: Seconds before a lost connection is made anew.
RECONNECT_S = 0.5


class Listener:
    """Waits for announcements about one task."""

    def __init__(self) -> None:
        self.confirmed = threading.Event()
        self._changed = threading.Event()

    def wake(self) -> None:
        """Note that something changed."""
        self._changed.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the next change; False when time is up first."""
        changed = self._changed.wait(max(0.0, timeout_s))
        self._changed.clear()
        return changed


class Subscriber:
    """Fans announcements out to the listeners of this process.

    Args:
        client: Where to subscribe.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._listeners: dict[str, set[Listener]] = defaultdict(set)
        self._confirmed: set[str] = set()
        self._lock = threading.Lock()
        self._pubsub: Any = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def listening(self, task_id: str) -> Iterator[Listener]:
        """Listen to a task; what happens from here on is not missed.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        channel, listener = keys.events(task_id), Listener()
        with self._lock, translated():
            self._start()
            if not self._listeners[channel]:
                self._pubsub.subscribe(channel)
            elif channel in self._confirmed:
                listener.confirmed.set()
            self._listeners[channel].add(listener)
        try:
            listener.confirmed.wait(CONFIRM_S)
            yield listener
        finally:
            self._leave(channel, listener)

    def _leave(self, channel: str, listener: Listener) -> None:
        with self._lock:
            self._listeners[channel].discard(listener)
            if not self._listeners[channel]:
                del self._listeners[channel]
                self._confirmed.discard(channel)
                try:
                    self._pubsub.unsubscribe(channel)
                except redis.RedisError:
                    self._pubsub.connection and self._pubsub.connection.disconnect()

    def _start(self) -> None:
        if self._pubsub is None:
            self._pubsub = self.client.pubsub()
        if self._thread is None:
            self._pubsub.subscribe("textgen:wake")
            self._thread = threading.Thread(target=self._read, name="subscriber", daemon=True)
            self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                message = self._pubsub.get_message(timeout=1.0)
            except (redis.RedisError, OSError, ValueError):
                self._reconnect()
                continue
            if message is None:
                continue
            with self._lock:
                listeners = list(self._listeners.get(message["channel"], ()))
                if message["type"] == "subscribe" and listeners:
                    self._confirmed.add(message["channel"])
            for listener in listeners:
                if message["type"] == "subscribe":
                    listener.confirmed.set()
                elif message["type"] == "message":
                    listener.wake()

    def _reconnect(self) -> None:
        """Subscribe anew to everything, and have all listeners look at the store."""
        time.sleep(RECONNECT_S)
        with self._lock:
            channels = ["textgen:wake", *self._listeners]
            fresh = self.client.pubsub()
            try:
                fresh.subscribe(*channels)
            except (redis.RedisError, OSError):
                return
            self._pubsub = fresh
            listeners = [listener for group in self._listeners.values() for listener in group]
        for listener in listeners:
            listener.wake()


_subscribers: dict[int, Subscriber] = {}
_subscribers_lock = threading.Lock()


def subscriber(store: Store) -> Subscriber:
    """The subscriber of this process."""
    with _subscribers_lock:
        found = _subscribers.get(os.getpid())
        if found is None:
            found = _subscribers[os.getpid()] = Subscriber(store.client)
        return found


def wait_until_terminal(
    store: Store, task_id: str, timeout_s: float | None, must_exist: bool = True
) -> Record | None:
    """Wait for a task to become terminal.

    Args:
        store: Where it is.
        task_id: Which task.
        timeout_s: Seconds to wait at the most; None for as long as it takes.
        must_exist: Whether an unknown task is an error; else it is waited for.

    Returns:
        The record as it stands when the task is terminal or time is up.

    Raises:
        UnknownTask: There is no record, and `must_exist`.
    """
    record = store.get(task_id)
    if record is not None and record.status.is_terminal:
        return record
    if record is None and must_exist:
        raise UnknownTask(f"task {task_id} does not exist, or its record has expired")
    give_up = None if timeout_s is None else time.monotonic() + timeout_s
    with subscriber(store).listening(task_id) as listener:
        while True:
            record = store.get(task_id)
            left = LOOK_S if give_up is None else give_up - time.monotonic()
            if (record is not None and record.status.is_terminal) or left <= 0:
                return record
            if record is None and must_exist:
                raise UnknownTask(f"task {task_id} has expired while it was waited for")
            listener.wait(min(left, LOOK_S))


def follow(
    store: Store, task_id: str, after: str | None = None, heartbeat_s: float = 15.0
) -> Iterator[Event | None]:
    """Follow a task's event log, from behind entry `after` to the terminal state.

    Yields:
        The events in order, and None after each `heartbeat_s` seconds without one.

    Raises:
        UnknownTask: There is no such task, or its record has expired meanwhile.
    """
    with subscriber(store).listening(task_id) as listener:
        beat = time.monotonic() + heartbeat_s
        while True:
            page = log.read(store, task_id, after)
            for event in page:
                yield event
                after = event.id
            if page:
                beat = time.monotonic() + heartbeat_s
                if _is_end(page[-1]):
                    return
                continue
            record = store.get(task_id)
            if record is None:
                raise UnknownTask(f"task {task_id} does not exist, or its record has expired")
            if record.status.is_terminal and not log.read(store, task_id, after):
                return
            if not listener.wait(min(LOOK_S, beat - time.monotonic())) and time.monotonic() >= beat:
                yield None
                beat = time.monotonic() + heartbeat_s


def _is_end(event: Event) -> bool:
    return event.type == "state" and event.data["status"] in ("COMPLETED", "FAILED", "CANCELLED")
