"""One connection per process on which all waits of that process hear of changes.

Every entry of a task's event log is announced on the channel of the same name, as `<id> <type>`. A
listener is woken by an announcement, and by a lost connection; it then looks what has changed.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from textgen.errors import UnknownTask
from textgen.lifecycle import Record
from textgen.store import keys
from textgen.store.connection import translated
from textgen.store.feed import Feed
from textgen.store.tasks import Store

#: Seconds between two looks at the store while nothing is announced: a net for lost announcements.
LOOK_S = 5.0
#: Seconds that a subscription may take to be confirmed before the store is read all the same.
CONFIRM_S = 2.0
#: Announcements taken in before others may have the connection.
BATCH = 100
#: Seconds that the rest of an announcement may take to come.
REST_S = 1.0
#: Seconds before a lost connection is made anew.
RECONNECT_S = 0.5
#: The part of a process's connections that followers may use at once: the rest is for all else.
FOLLOWERS_SHARE = 4
#: Seconds between two rounds in which new text is told, for each listener of the first: so a process
#: with many of them tells several pieces at once, and has time left for all else.
PACE_S = 0.0002


class Listener:
    """Waits for announcements about one task.

    Args:
        channel: The task's.
        chunks: Whether new text is of interest too, or only what changes the record.
    """

    def __init__(self, channel: Channel, chunks: bool = False) -> None:
        self.chunks = chunks
        #: The task's log, as all listeners of this process share it.
        self.feed = channel.feed
        self.confirmed = channel.confirmed
        self._changed = threading.Event()

    def wake(self) -> None:
        """Note that something changed."""
        self._changed.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the next change; False when time is up first."""
        changed = self._changed.wait(max(0.0, timeout_s))
        self._changed.clear()
        return changed


class Channel:
    """The announcements of one task, and who listens to them."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.confirmed = threading.Event()
        self.listeners: set[Listener] = set()

    def wake(self, is_text: bool = False) -> int:
        """Have the listeners look, or only those for whom text is of interest; returns how many."""
        self.feed.expire()
        woken = [listener for listener in list(self.listeners) if listener.chunks or not is_text]
        for listener in woken:
            listener.wake()
        return len(woken)


class Subscriber:
    """Fans announcements out to the listeners of this process.

    Args:
        store: Where to subscribe.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._channels: dict[str, Channel] = {}
        #: Held by whoever uses the connection: redis-py makes it anew in whatever thread finds it lost.
        self._lock = threading.Lock()
        #: Listeners that have gone. Whoever is not followed to its end goes when it is garbage, which may be
        #: in the middle of a call here, with the lock held.
        self._gone: deque[tuple[str, Channel, Listener]] = deque()
        connections = store.client.connection_pool.max_connections
        self.reads = threading.BoundedSemaphore(max(1, connections // FOLLOWERS_SHARE))
        #: Those with new text of which their listeners have not been told, and when that is due.
        self._untold: set[Channel] = set()
        self._round_at = 0.0
        self._pubsub: Any = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def listening(self, task_id: str, chunks: bool = False) -> Iterator[Listener]:
        """Listen to a task; what happens from here on is not missed.

        Args:
            task_id: Which task.
            chunks: Whether to be woken by new text too.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        name = keys.events(task_id)
        with self._lock, translated():
            self._let_go()
            self._start()
            channel = self._channels.get(name)
            if channel is None:
                self._pubsub.subscribe(name)
                channel = self._channels[name] = Channel(Feed(self.store, task_id, self.reads))
            listener = Listener(channel, chunks)
            channel.listeners.add(listener)
        try:
            if listener.confirmed.wait(CONFIRM_S):
                listener.wait(0)  # whoever listens from here on looks first
            yield listener
        finally:
            self._leave(name, channel, listener)

    def _leave(self, name: str, channel: Channel, listener: Listener) -> None:
        self._gone.append((name, channel, listener))
        if self._lock.acquire(blocking=False):  # else it is let go by who comes next
            try:
                self._let_go()
            finally:
                self._lock.release()

    def _let_go(self) -> None:
        """Forget the listeners that have gone. With the lock held."""
        while self._gone:
            name, channel, listener = self._gone.popleft()
            channel.listeners.discard(listener)
            if channel.listeners or self._channels.get(name) is not channel:
                continue
            del self._channels[name]
            try:
                self._pubsub.unsubscribe(name)
            except redis.RedisError:
                self._pubsub.connection and self._pubsub.connection.disconnect()

    def _start(self) -> None:
        if self._pubsub is None:
            self._pubsub = self.store.client.pubsub()
        if self._thread is None:
            self._pubsub.subscribe("textgen:wake")
            self._thread = threading.Thread(target=self._read, name="subscriber", daemon=True)
            self._thread.start()

    def _read(self) -> None:
        messages: list[Any] = []
        while True:
            is_more = len(messages) == BATCH
            wait_s = max(0.0, self._round_at - time.monotonic()) if self._untold else 1.0
            try:
                has_come = self._await(0.0 if is_more else wait_s) or is_more
                with self._lock:
                    self._let_go()
                    self._pubsub.check_health()
                    messages = self._messages() if has_come else []
            except (redis.RedisError, OSError, ValueError):
                messages = []
                self._reconnect()
            for message in filter(None, messages):
                self._take(message)
            if self._untold and time.monotonic() >= self._round_at:
                woken = sum(channel.wake(is_text=True) for channel in self._untold)
                self._untold.clear()
                self._round_at = time.monotonic() + woken * PACE_S

    def _await(self, wait_s: float) -> bool:
        """Whether something has come, or the connection is lost. Only this is done without the lock."""
        sock = self._pubsub.connection._sock  # redis-py waits for it only in a read, which needs the lock
        if sock is None:
            return True
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(wait_s * 1000))

    def _messages(self) -> list[Any]:
        """What has come, BATCH at the most; None stands for what is no message. With the lock held."""
        found = [self._pubsub.get_message(timeout=REST_S)]
        while len(found) < BATCH and self._pubsub.connection.can_read():
            found.append(self._pubsub.get_message(timeout=REST_S))
        return found

    def _take(self, message: dict[str, Any]) -> None:
        channel = self._channels.get(message["channel"])
        if channel is None:
            return
        if message["type"] == "subscribe":
            channel.wake()  # what was announced before is missed
            channel.confirmed.set()
        elif message["type"] == "message":
            if message["data"].endswith(" chunk"):
                self._untold.add(channel)
            else:
                channel.wake()

    def _reconnect(self) -> None:
        """Subscribe anew to everything, and have all listeners look at the store."""
        time.sleep(RECONNECT_S)
        with self._lock:
            fresh = self.store.client.pubsub()
            try:
                fresh.subscribe("textgen:wake", *self._channels)
            except (redis.RedisError, OSError):
                return
            self._pubsub = fresh
            channels = list(self._channels.values())
        for channel in channels:
            channel.wake()


_subscribers: dict[int, Subscriber] = {}
_subscribers_lock = threading.Lock()


def subscriber(store: Store) -> Subscriber:
    """The subscriber of this process."""
    with _subscribers_lock:
        found = _subscribers.get(os.getpid())
        if found is None:
            found = _subscribers[os.getpid()] = Subscriber(store)
        return found


def wait_until_terminal(
    store: Store,
    task_id: str,
    timeout_s: float | None,
    must_exist: bool = True,
    owner: str | None = None,
) -> Record | None:
    """Wait for a task to become terminal.

    Args:
        store: Where it is.
        task_id: Which task.
        timeout_s: Seconds to wait at the most; None for as long as it takes.
        must_exist: Whether an unknown task is an error; else it is waited for.
        owner: Whose it must be; None: anybody's.

    Returns:
        The record as it stands when the task is terminal or time is up.

    Raises:
        UnknownTask: There is no record, and `must_exist`; or it is somebody else's.
    """
    reads = subscriber(store).reads
    with reads:
        record = store.get(task_id)
    if record is not None and owner not in (None, record.owner):
        raise UnknownTask(f"task {task_id} does not exist, or its record has expired")
    if record is not None and record.status.is_terminal:
        return record
    if record is None and must_exist:
        raise UnknownTask(f"task {task_id} does not exist, or its record has expired")
    give_up = None if timeout_s is None else time.monotonic() + timeout_s
    with subscriber(store).listening(task_id) as listener:
        while True:
            with reads:
                record = store.get(task_id)
            left = LOOK_S if give_up is None else give_up - time.monotonic()
            if record is None and must_exist:
                raise UnknownTask(f"task {task_id} has expired while it was waited for")
            if (record is not None and record.status.is_terminal) or left <= 0:
                return record
            listener.wait(min(left, LOOK_S))
