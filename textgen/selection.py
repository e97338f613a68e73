"""Which tasks a listing is to show, and a page of one. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from textgen.lifecycle import Record, Status, time_ms

#: Records on a page where nobody says how many, and the most that one may have.
PAGE, MAX_PAGE = 20, 100


@dataclass(frozen=True, slots=True)
class Selection:
    """What the tasks listed must have in common; without anything, all tasks of an owner match."""

    status: Status | None = None
    #: The engine that was asked for by name, or that wrote the text.
    engine: str | None = None
    #: Submitted after this; aware.
    created_after: datetime | None = None
    #: Key of `metadata` → its value as text, see `as_text`.
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def after_ms(self) -> int | None:
        """`created_after` in milliseconds since 1970, in the thirteen digits that positions have."""
        if self.created_after is None:
            return None
        since = self.created_after - datetime(1970, 1, 1, tzinfo=UTC)
        return min(max(int(since.total_seconds() * 1000), 0), 10**13 - 2)

    def matches(self, record: Record) -> bool:
        """Whether `record` is one of the tasks meant."""
        created_ms = round(time_ms(record.created_at)) if record.created_at else 0
        return (
            self.status in (None, record.status)
            and self.engine in (None, *engines_of(record))
            and (self.after_ms is None or created_ms > self.after_ms)
            and all(as_text(record.metadata.get(key, ())) == text for key, text in self.metadata.items())
        )


#: All tasks of an owner.
EVERY = Selection()


def engines_of(record: Record) -> set[str]:
    """The engines by which a task is found: the one asked for and the one that wrote the text."""
    return {name for name in (record.params.get("engine"), record.engine) if name}


def as_text(value: Any) -> str | None:
    """A value of `metadata` as a filter names it: a text as it is, a number, true, false or null as JSON.

    Returns:
        None for lists and objects, by which no task is found.
    """
    if isinstance(value, str):
        return value
    return None if isinstance(value, (list, tuple, dict)) else json.dumps(value)


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing, newest first."""

    #: Fewer than asked for, even none, where those that match lie far apart; `next_cursor` tells the end.
    records: list[Record]
    #: Where the next page begins; None: this is the last one.
    next_cursor: str | None = None


def walk(read: Callable[[int, str | None], Page], at_most: int | None = None) -> Iterator[Record]:
    """The records of page after page.

    Args:
        read: Reads a page: takes how many records it may have, and its cursor.
        at_most: Records after which to stop; None: never.
    """
    cursor, left = None, at_most
    while left is None or left > 0:
        page = read(MAX_PAGE if left is None else min(left, MAX_PAGE), cursor)
        yield from page.records
        cursor = page.next_cursor
        if cursor is None:
            return
        left = None if left is None else left - len(page.records)
