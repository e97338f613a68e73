"""Following a task's event log to its end: what every stream comes down to."""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from typing import Self

from textgen.errors import InvalidRequest, UnknownTask
from textgen.lifecycle import Event, Record, Status
from textgen.store import log
from textgen.store.feed import order
from textgen.store.subscriber import Listener, subscriber
from textgen.store.tasks import Store

#: Seconds without an event after which a follower gets a sign of life, and looks at the store itself.
HEARTBEAT_S = 15.0
#: A position in a log, as events' ids are.
POSITION = re.compile(r"[0-9]{1,15}-[0-9]{1,9}")
#: The position of what is not in the log: a `reset` because the log has begun anew.
ANEW = "0-1"


class Following:
    """The events of a task in order, behind a position, up to its terminal state; an iterator.

    It yields None after each `heartbeat_s` seconds without an event. The first step subscribes; any
    may raise UnknownTask (the record has expired meanwhile) or StoreUnavailable.

    Args:
        store: Where the task is.
        task_id: Which task.
        after: Id of the event behind which to begin; None for the beginning. Where the log holds
            nothing so late, because Redis lost it, a `reset` comes first, then all there is.
        owner: Whose it must be; None: anybody's.
        heartbeat_s: Seconds.

    Raises:
        InvalidRequest: `after` is not an event's id.
        UnknownTask: There is no such task, or it is somebody else's.
        StoreUnavailable: Redis does not answer.
    """

    def __init__(
        self,
        store: Store,
        task_id: str,
        after: str | None = None,
        owner: str | None = None,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        if after is not None and not POSITION.fullmatch(after):
            raise InvalidRequest.of({"field": "after", "reason": "is not the id of an event"})
        self._store, self._task_id, self._after, self._owner = store, task_id, after, owner
        self._heartbeat_s = heartbeat_s
        self._listener: Listener | None = None
        self._is_stopped = False
        #: Whether the task's end has been reached, and not only that of the iteration.
        self.is_over = False
        self._read()
        #: The same, page by page: lists of events that were there at once, empty for a sign of life.
        self.pages = self._follow()
        self._steps = self._flattened()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event | None:
        return next(self._steps)

    def stop(self) -> None:
        """End the iteration at its next step, also one that waits; any thread may call it."""
        self._is_stopped = True
        if self._listener:
            self._listener.wake()

    def close(self) -> None:
        """Stop listening, for whoever does not iterate to the end; not while another thread iterates."""
        self._steps.close()
        self.pages.close()

    def _flattened(self) -> Generator[Event | None]:
        for page in self.pages:
            if page:
                yield from page
            else:
                yield None

    def _follow(self) -> Generator[list[Event]]:
        with subscriber(self._store).listening(self._task_id, chunks=True) as self._listener:
            if not self._listener.feed.after(self._after):
                yield from self._look(self._listener)
            beat = time.monotonic() + self._heartbeat_s
            while not self._is_stopped and not self.is_over:
                page = self._listener.feed.after(self._after)
                if page:
                    self._after, self.is_over = page[-1].id, _is_end(page[-1])
                    yield page
                    beat = time.monotonic() + self._heartbeat_s
                elif not self._listener.wait(beat - time.monotonic()) and time.monotonic() >= beat:
                    yield []
                    beat = time.monotonic() + self._heartbeat_s
                    self._listener.feed.expire(self._heartbeat_s / 2)
                    yield from self._look(self._listener)

    def _look(self, listener: Listener) -> Generator[list[Event]]:
        """See whether a log that has nothing new is over, lost or gone."""
        record = self._read()
        with subscriber(self._store).reads:
            newest = log.newest(self._store, self._task_id)
        if order(newest) < order(self._after):
            self._after = None
            listener.feed.restart(newest)
            yield [Event(ANEW, "reset", 1, {"reason": "log_lost"})]
        elif record.status.is_terminal and order(newest) == order(self._after):
            self.is_over = True

    def _read(self) -> Record:
        # in line with the other followers, and not for all of the process's connections
        with subscriber(self._store).reads:
            record = self._store.get(self._task_id)
        if record is None or self._owner not in (None, record.owner):
            raise UnknownTask(f"task {self._task_id} does not exist, or its record has expired")
        return record


def _is_end(event: Event) -> bool:
    return event.type == "state" and Status(event.data["status"]).is_terminal
