"""Where a task stands in the indexes of its owner: which sorted sets, and under which name in each.

The members of a set all have score 0, so that Redis sorts them by name: 13 digits of the milliseconds of
the submit, a hyphen, the task's id. A place in that order stays the same whatever is added or removed,
and no two tasks share one. In the sets of PENDING and PROCESSING the attempt follows behind a dot: a task
is in each state of each attempt but once, so a place that it has left is never its place again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator

from textgen.lifecycle import Record, Status, time_ms
from textgen.selection import Selection, as_text, engines_of
from textgen.store import keys

#: A place in a set.
PLACE = re.compile(r"\d{13}-[0-9a-f-]{36}(\.\d{1,6})?")


def place(record: Record) -> str:
    """Where a record stands in all sets but those of PENDING and PROCESSING; it must have a time."""
    return place_at(round(time_ms(record.created_at or "")), record.task_id)


def place_at(created_ms: int, task_id: str) -> str:
    """The place of a task that was submitted at `created_ms`."""
    return f"{created_ms:013d}-{task_id}"


def task_of(member: str) -> str:
    """The id of the task that has this place."""
    return member[14:50]


def created_ms_of(member: str) -> int:
    """When the task that has this place was submitted."""
    return int(member[:13])


def place_in(status: Status, record: Record, attempt: int | None = None) -> str:
    """The place of a task in the set of a status, in an attempt: by default that of the record."""
    if status.is_terminal:
        return place(record)
    return f"{place(record)}.{record.attempt if attempt is None else attempt}"


def status_set(record: Record) -> tuple[str, str]:
    """Set and place by which the task's status is found."""
    return keys.listed(record.owner, f"status:{record.status.value}"), place_in(record.status, record)


def other_sets(record: Record, metadata_keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Sets and places of a task that do not change with its status."""
    yield keys.listed(record.owner, "all"), place(record)
    for engine in engines_of(record):
        yield _digested(record.owner, "engine", engine), place(record)
    for key in metadata_keys:
        text = as_text(record.metadata[key]) if key in record.metadata else None
        if text is not None:
            yield _digested(record.owner, "metadata", key, text), place(record)


def left_by(record: Record) -> list[tuple[str, str]]:
    """Sets and places that a task has left by getting where it is now."""
    if record.status is Status.PENDING:
        left = [(Status.PROCESSING, record.attempt)]
    elif record.status is Status.PROCESSING:
        left = [(Status.PENDING, record.attempt - 1)]
    else:
        left = [(Status.PENDING, record.attempt), (Status.PROCESSING, record.attempt)]
    return [
        (keys.listed(record.owner, f"status:{status.value}"), place_in(status, record, attempt))
        for status, attempt in left
    ]


def sets_of(owner: str, selection: Selection) -> list[str]:
    """The sets that all tasks in a selection are in."""
    named = []
    if selection.status:
        named.append(keys.listed(owner, f"status:{selection.status.value}"))
    if selection.engine is not None:
        named.append(_digested(owner, "engine", selection.engine))
    named += [_digested(owner, "metadata", key, text) for key, text in selection.metadata.items()]
    return named or [keys.listed(owner, "all")]


def is_over(member: str, record: Record) -> bool:
    """Whether this is a place to which the task of a record, which does not stand there, never comes."""
    if not member.startswith(place(record)) or record.status.is_terminal:
        return True
    attempt = member.partition(".")[2]
    return bool(attempt) and int(attempt) < record.attempt


def _digested(owner: str, kind: str, *parts: str) -> str:
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    return keys.listed(owner, f"{kind}:{digest}")
