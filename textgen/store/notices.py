"""What a task's webhook is told of a change of status: made here, kept by the script of that change.

The body is fixed in that moment, so that every try of its delivery sends the same, also when the
record has expired.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from textgen.lifecycle import Record, Status
from textgen.store.answers import dump

#: Status → the event that a webhook may want to be told.
EVENTS: dict[Status, str] = {
    Status.PROCESSING: "task.processing",
    Status.COMPLETED: "task.completed",
    Status.FAILED: "task.failed",
    Status.CANCELLED: "task.cancelled",
}
#: Bytes of a record in a body. With what stands around it that stays under the 20 kB that Standard
#: Webhooks asks for (github.com/standard-webhooks/standard-webhooks, spec, "Payload size").
MAX_BYTES = 19_000
#: The stamps that the script adds to a record, in bytes.
_STAMP_BYTES = 200
_ID = re.compile(r"msg_([0-9a-f-]{36})_(processing|completed|failed|cancelled)_\d+")


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell a webhook."""

    #: The `webhook-id`: the same in every try, and for the same change never made twice.
    id: str
    #: The members of the body that stand before `data`, without braces.
    head: str
    #: The record to send where the whole one is too long, or None.
    short: Record | None

    def arguments(self, *stamps: str) -> tuple[str, str, str]:
        """What the script is given, for a record that it stamps with `stamps`."""
        return self.id, self.head, dump(self.short, *stamps) if self.short else ""


#: What the script is given where there is nothing to tell.
NOTHING = ("", "", "")


def task_of(delivery_id: str) -> str:
    """The id of the task that a delivery is about; empty where it is no id of a delivery."""
    found = _ID.fullmatch(delivery_id)
    return found[1] if found else ""


def notice_of(record: Record) -> Notice | None:
    """What `record`, as it is about to be written, means for its task's webhook; None: nothing."""
    event = EVENTS.get(record.status)
    if event is None or not record.webhook or event not in record.webhook["events"]:
        return None
    short, cut = shortened(record)
    head: dict[str, Any] = {"type": event} | ({"truncated": cut} if cut else {})
    return Notice(
        id=f"msg_{record.task_id}_{record.status.value.lower()}_{record.attempt}",
        head=json.dumps(head, separators=(",", ":"))[1:-1],
        short=short if cut else None,
    )


def shortened(record: Record) -> tuple[Record, list[str]]:
    """Cut a record down to `MAX_BYTES`: without the prompt, then without the end of the text.

    Metadata and parameters go only where they leave no room for any text.

    Returns:
        The record, and the names of the fields that are not whole.
    """
    cut: list[str] = []
    if _size(record) > MAX_BYTES:
        cut = ["messages" if record.messages else "prompt"]
        record = record.but(prompt=None, messages=None)
    if _size(record.but(result=None)) > MAX_BYTES:
        cut += ["metadata", "params"]
        record = record.but(metadata={}, params={})
    if _size(record) > MAX_BYTES:
        cut.append("result")
        record = _with_less_text(record)
    return record, cut


def _size(record: Record) -> int:
    return len(dump(record).encode(errors="replace")) + _STAMP_BYTES


def _with_less_text(record: Record) -> Record:
    """The record with as much of its text's beginning as fits."""
    text = record.result or ""
    fits, fits_not = 0, len(text) + 1
    while fits_not - fits > 1:
        middle = (fits + fits_not) // 2
        if _size(record.but(result=text[:middle])) <= MAX_BYTES:
            fits = middle
        else:
            fits_not = middle
    return record.but(result=text[:fits])
