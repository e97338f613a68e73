"""A client that plays a script instead of talking to broker and store: for what the terminal shows."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from textgen.direct import Overview
from textgen.engine_states import EngineState
from textgen.errors import TaskFinished, TaskUnfinished, TextgenError, UnknownTask
from textgen.lifecycle import Event, Failure, Record, Status, Usage, new_task_id
from textgen.selection import Page, Selection
from textgen.store.permits import Account

TIMES = {
    "created_at": "2026-01-01T00:00:00+00:00",
    "started_at": "2026-01-01T00:00:01+00:00",
    "finished_at": "2026-01-01T00:00:03.500000+00:00",
}


def state(seq: int, attempt: int, status: Status) -> Event:
    return Event(f"{seq}-{attempt}", "state", attempt, {"status": status.value, "at": TIMES["created_at"]})


def chunk(seq: int, attempt: int, text: str) -> Event:
    return Event(f"{seq}-{attempt}", "chunk", attempt, {"text": text})


def completed(record: Record, text: str) -> Record:
    usage = Usage(prompt_tokens=3, completion_tokens=2)
    return record.but(status=Status.COMPLETED, result=text, engine="mock", attempt=1, usage=usage, **TIMES)


def failed(record: Record) -> Record:
    error = Failure("deadline", "it was not done in time")
    return record.but(status=Status.FAILED, error=error, engine="mock", attempt=1, **TIMES)


@dataclass
class ScriptedClient:
    """Answers every prompt with the same words, except those that name an ending of their own.

    `fail` ends FAILED; `hang` generates one word and then waits to be cancelled.
    """

    refusal: TextgenError | None = None
    submitted: list[Mapping[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    hangs: threading.Event = field(default_factory=threading.Event)
    _ended: dict[str, threading.Event] = field(default_factory=dict)

    def submit(self, request: Mapping[str, Any], /, *, idempotency_key: str | None = None) -> Record:
        if self.refusal:
            raise self.refusal
        self.keys.append(idempotency_key)
        self.submitted.append(request)
        record = Record(new_task_id(), prompt=request.get("prompt"), messages=request.get("messages"))
        self.records[record.task_id] = record
        self._ended[record.task_id] = threading.Event()
        return record

    def get(self, task_id: str) -> Record:
        if task_id not in self.records:
            raise UnknownTask(f"no task has the id {task_id!r}")
        return self.records[task_id]

    def stream(self, task_id: str) -> Iterator[Event | None]:
        record = self.get(task_id)
        yield state(1, 0, Status.PENDING)
        yield state(2, 1, Status.PROCESSING)
        if record.prompt == "fail":
            self.records[task_id] = failed(record)
            yield state(3, 1, Status.FAILED)
            return
        yield chunk(3, 1, "two ")
        yield None
        if record.prompt == "hang":
            self.hangs.set()
            self._ended[task_id].wait()
            yield state(4, 1, Status.CANCELLED)
            return
        yield chunk(4, 1, "words")
        self.records[task_id] = completed(record, "two words")
        yield state(5, 1, Status.COMPLETED)

    def cancel(self, task_id: str) -> Record:
        record = self.get(task_id)
        if record.status in (Status.COMPLETED, Status.FAILED):
            raise TaskFinished(f"task {task_id} is already {record.status}")
        self.records[task_id] = record.but(status=Status.CANCELLED, result="two ", attempt=1)
        self._ended[task_id].set()
        return self.records[task_id]

    def recent(self, limit: int = 50) -> list[Record]:
        return list(reversed(self.records.values()))[:limit]

    def list_page(self, selection: Selection, limit: int, cursor: str | None = None) -> Page:
        found = [record for record in self.recent() if selection.matches(record)]
        start = int(cursor or 0)
        rest = str(start + limit) if len(found) > start + limit else None
        return Page(found[start : start + limit], rest)

    def delete(self, task_id: str) -> None:
        if not self.get(task_id).status.is_terminal:
            raise TaskUnfinished(f"task {task_id} is {self.get(task_id).status}")
        del self.records[task_id]

    def clear_cache(self) -> int:
        return 3

    def overview(self) -> Overview:
        statuses: dict[str, int] = {}
        for record in self.records.values():
            statuses[record.status.value] = statuses.get(record.status.value, 0) + 1
        account = Account("open", 5, 12.0, 0.0, 34, 400, 7, {}, {"granted": 34})
        down = EngineState("openai", 60, 0, 60.0, account)
        return Overview(statuses, {"text_generation_tasks": 4}, ["w1@host"], {"taken over": 2}, [down])
