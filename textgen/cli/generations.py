"""Several generations at once, followed from one thread: the terminal's.

Calls that block run in threads of their own, so that a time-out and Ctrl-C take effect at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from textgen.cli.connection import TaskClient
from textgen.errors import TaskFinished, TextgenError, Unavailable, WaitTimeout
from textgen.lifecycle import Event, Record, Status


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

    Attributes:
        records: Index → the newest record known, of the requests that were accepted.
        outcomes: Index → the last record or the error of the requests that are over.
    """

    def __init__(self, client: TaskClient, requests: Sequence[dict[str, Any]], parallel: int = 1) -> None:
        self.records: dict[int, Record] = {}
        self.outcomes: dict[int, Record | TextgenError] = {}
        self._client = client
        self._count = len(requests)
        self._waiting = iter(enumerate(requests))
        self._lock = threading.Lock()
        self._refusal: TextgenError | None = None
        #: Index → id of those that were accepted and are not over.
        self._running: dict[int, str] = {}
        self._is_cancelled = False
        self._updates: SimpleQueue[Update] = SimpleQueue()
        for _ in range(min(parallel, self._count)):
            threading.Thread(target=self._work, daemon=True).start()

    def updates(self, timeout_s: float | None = None) -> Iterator[Update]:
        """Tell what happens, until all are over.

        Raises:
            WaitTimeout: `timeout_s` seconds were not enough. Nothing more is submitted; what was
                accepted goes on.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while len(self.outcomes) < self._count:
            try:
                update = self._updates.get(timeout=None if end is None else max(0, end - time.monotonic()))
            except Empty:
                self.stop()
                raise WaitTimeout(f"not finished after {timeout_s:g} s") from None
            self._note(update)
            if update.last:
                self.outcomes[update.index] = update.what  # type: ignore[assignment]
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

    def _note(self, update: Update) -> None:
        """Keep `records` up to date."""
        what, index = update.what, update.index
        if isinstance(what, Record):
            self.records[index] = what
        elif isinstance(what, Event) and what.type == "state":
            status = Status(what.data["status"])
            self.records[index] = self.records[index].but(status=status, attempt=what.attempt)

    def _work(self) -> None:
        while True:
            with self._lock:
                index, fields = next(self._waiting, (None, None))
            if index is None or fields is None:
                return
            self._follow(index, fields)

    def _follow(self, index: int, fields: dict[str, Any]) -> None:
        """Submit one request and tell how it goes; its last update comes whatever happens."""
        outcome: Record | TextgenError = TextgenError("ended unexpectedly")
        try:
            record = self._submit(fields)
            self._running[index] = record.task_id
            self._updates.put(Update(index, record))
            if self._is_cancelled:
                self._cancel()
            for event in self._client.stream(record.task_id):
                if event is not None:
                    self._updates.put(Update(index, event))
            outcome = self._client.get(record.task_id)
        except TextgenError as exc:
            outcome = exc
        finally:
            self._running.pop(index, None)
            self._updates.put(Update(index, outcome, last=True))

    def _submit(self, fields: dict[str, Any]) -> Record:
        """Submit, unless a submit before found broker or store unavailable."""
        if self._refusal:
            raise self._refusal
        try:
            return self._client.submit(fields)
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
