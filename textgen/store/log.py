"""Reading a task's event log: the stream `events:{task:<id>}`."""

from __future__ import annotations

import json
from typing import Any

from textgen.lifecycle import Event
from textgen.store import keys
from textgen.store.connection import translated
from textgen.store.tasks import Store

#: Entries read in one call.
PAGE = 1000


def _event(entry_id: str, fields: dict[str, str]) -> Event:
    data: dict[str, Any] = {name: value for name, value in fields.items() if name != "type"}
    if "usage" in data:
        data = json.loads(data["usage"])
    kind: Any = fields["type"]
    return Event(entry_id, kind, int(entry_id.rpartition("-")[2]), data)


def read(store: Store, task_id: str, after: str | None = None, limit: int = PAGE) -> list[Event]:
    """Read entries of the log in order.

    Args:
        store: Where the log is.
        task_id: Whose log.
        after: Id of the entry behind which to begin; None for the beginning.
        limit: Entries at the most.
    """
    start = f"({after}" if after else "-"
    with translated():
        found: Any = store.client.xrange(keys.events(task_id), start, "+", count=limit)
    return [_event(entry_id, fields) for entry_id, fields in found]


def newest(store: Store, task_id: str) -> str | None:
    """The id of a log's last entry, or None where there is none."""
    with translated():
        found: Any = store.client.xrevrange(keys.events(task_id), count=1)
    return found[0][0] if found else None


def text_of(store: Store, task_id: str, attempt: int) -> str:
    """The text that attempt number `attempt` has added so far."""
    parts: list[str] = []
    after: str | None = None
    while page := read(store, task_id, after):
        for event in page:
            if event.type == "reset" and event.data["reason"] == "log_lost":
                parts.clear()
            elif event.type == "chunk" and event.attempt == attempt:
                parts.append(event.data["text"])
        after = page[-1].id
    return "".join(parts)
