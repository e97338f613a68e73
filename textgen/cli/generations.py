"""Several generations at once, followed from one thread: the terminal's.

Calls that block run in threads of their own, so that a time-out and Ctrl-C take effect at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from textgen.cli.connection import TaskClient
from textgen.errors import TaskFinished, TextgenError, Unavailable, WaitTimeout
from textgen.lifecycle import Event, Record, Status

#: Seconds of one wait. A signal that comes just before a wait begins is seen only when it is over.
LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Update:
    """Something that happened to one of the generations."""

    #: Which of the requests.
    index: int
    #: A record: accepted. An event of its log. Over: the last record, or why there is none.
    what: Record | Event | TextgenError
    #: Whether it is the last update of this generation.
    last: bool = False


class Generations:
    """Submits requests in order, `parallel` of them under way at any time, and tells how they go.

    Args:
        client: What to submit to.
        requests: The fields of each request.
        parallel: How many may be under way at once.
        idempotency_key: Of a request that may have been sent before; it is then the only one.

    Attributes:
        records: Index → the newest record known, of the requests that were accepted. It may be
            ahead of the updates told.
        outcomes: Index → the last record or the error, of the requests told to be over.
    """

    def __init__(
        self,
        client: TaskClient,
        requests: Sequence[dict[str, Any]],
        parallel: int = 1,
        idempotency_key: str | None = None,
    ) -> None:
        self.records: dict[int, Record] = {}
        self.outcomes: dict[int, Record | TextgenError] = {}
        self._client = client
        self._key = idempotency_key
        self._count = len(requests)
        self._waiting = iter(enumerate(requests))
        self._lock = threading.Lock()
        self._refusal: TextgenError | None = None
        #: Index → id of those that were accepted and are not over.
        self._running: dict[int, str] = {}
        self._is_cancelled = False
        #: A thread stands for itself where it broke down through an error of ours.
        self._updates: SimpleQueue[Update | threading.Thread] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(parallel)]

    def updates(self, timeout_s: float | None = None) -> Iterator[Update]:
        """Begin, and tell what happens until all are over.

        Raises:
            WaitTimeout: `timeout_s` seconds were not enough. Nothing more is submitted; what was
                accepted goes on.
        """
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads[: self._count]:
            thread.start()
        while len(self.outcomes) < self._count:
            try:
                update = self._next(end)
            except Empty:
                self.stop()
                raise WaitTimeout(f"not finished after {timeout_s:g} s") from None
            if update.last and not isinstance(update.what, Event):
                self.outcomes[update.index] = update.what
            yield update

    def give_up(self) -> Iterator[Update]:
        """Make a time-out the outcome of all that are not over."""
        for index in range(self._count):
            if index not in self.outcomes:
                record = self.records.get(index)
                state = f"task is {record.status.value} at time-out" if record else "not submitted in time"
                self.outcomes[index] = error = WaitTimeout(state)
                yield Update(index, error, last=True)

    def stop(self) -> None:
        """Submit nothing more."""
        self._refusal = self._refusal or TextgenError("not submitted")

    def cancel(self) -> None:
        """Have all tasks cancelled, also one whose submit is under way; signal handlers may call it."""
        self.stop()
        self._is_cancelled = True
        threading.Thread(target=self._cancel, daemon=True).start()

    def _next(self, end: float) -> Update:
        """Wait for the next update; raises Empty at `end`, a reading of the monotonic clock."""
        while True:
            left = end - time.monotonic()
            try:
                update = self._updates.get(timeout=max(0.0, min(left, LOOK_S)))
            except Empty:
                if left <= LOOK_S:
                    raise
            else:
                if isinstance(update, threading.Thread):
                    update.join()  # until it has printed its traceback
                    raise RuntimeError("a generation cannot be followed any further")
                return update

    def _work(self) -> None:
        while True:
            with self._lock:
                index, fields = next(self._waiting, (None, None))
            if index is None or fields is None:
                return
            self._follow(index, fields)

    def _follow(self, index: int, fields: dict[str, Any]) -> None:
        """Submit one request and tell how it goes; its last update comes whatever happens."""
        last: Update | threading.Thread = threading.current_thread()
        try:
            record = self.records[index] = self._submit(fields)
            self._running[index] = record.task_id
            self._updates.put(Update(index, record))
            if self._is_cancelled:
                self._cancel()
            for event in self._client.stream(record.task_id):
                if event is not None:
                    self._tell(index, event)
            self.records[index] = record = self._client.get(record.task_id)
            last = Update(index, record, last=True)
        except TextgenError as exc:
            last = Update(index, exc, last=True)
        finally:
            self._running.pop(index, None)
            self._updates.put(last)

    def _tell(self, index: int, event: Event) -> None:
        if event.type == "state":
            status = Status(event.data["status"])
            self.records[index] = self.records[index].but(status=status, attempt=event.attempt)
        self._updates.put(Update(index, event))

    def _submit(self, fields: dict[str, Any]) -> Record:
        """Submit, unless a submit before found broker or store unavailable."""
        if self._refusal:
            raise self._refusal
        try:
            return self._client.submit(fields, idempotency_key=self._key)
        except Unavailable as exc:
            self._refusal = exc
            raise

    def _cancel(self) -> None:
        for index, task_id in list(self._running.items()):
            try:
                self._client.cancel(task_id)
            except TaskFinished:
                continue
            except TextgenError as exc:
                self._updates.put(Update(index, exc, last=True))
