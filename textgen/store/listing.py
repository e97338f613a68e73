"""Reads pages of tasks out of the indexes, in a number of commands that does not depend on how many tasks
there are.

The records are the truth: an index entry whose record says otherwise is passed over, and dropped where it
can never be right again.
"""

from __future__ import annotations

from collections.abc import Iterator

from textgen.errors import InvalidRequest
from textgen.lifecycle import Record
from textgen.selection import Page, Selection
from textgen.store import keys
from textgen.store.answers import as_record
from textgen.store.connection import translated
from textgen.store.positions import (
    PLACE,
    created_ms_of,
    is_over,
    other_sets,
    place,
    sets_of,
    status_set,
    task_of,
)
from textgen.store.records import Records

#: Reads of entries with their records for one page, and the entries that each takes at the least.
READS, READ = 5, 100
#: Milliseconds after which an entry without a record is no submit under way any more.
ABSENT_MS = 60_000


def read_page(
    store: Records, owner: str | None, selection: Selection, limit: int, cursor: str | None = None
) -> Page:
    """Read a page of an owner's tasks, newest first.

    With several conditions the smallest of their sets is searched. Where its tasks do not meet the other
    conditions, a page ends after `READS` reads, however few it has found.

    Args:
        store: Where.
        owner: Whose tasks; None: everybody's.
        selection: Which of them.
        limit: Records that it may have.
        cursor: `next_cursor` of the page before.

    Raises:
        InvalidRequest: `cursor` is not one.
    """
    search = _Search(store, owner, selection, _checked_cursor(cursor))
    found: list[Record] = []
    for _ in range(READS):
        for member, record in search.read(max(limit + 1, READ) if found or search.has_read else limit + 1):
            if len(found) == limit:
                return search.page(found, search.last)
            if record is not None:
                found.append(record)
            # Behind all entries of a task that is shown, so that no other one of it is.
            search.last = member if record is None else place(record)
        if search.is_at_end:
            return search.page(found, None)
    return search.page(found, search.last)


class _Search:
    """The way of one page through the smallest set of a selection."""

    def __init__(self, store: Records, owner: str | None, selection: Selection, last: str | None) -> None:
        self._store, self._owner, self._selection = store, owner, selection
        self._name = self._smallest()
        self._dropped: list[str] = []
        #: The entry behind which the search goes on.
        self.last = last
        self.has_read = self.is_at_end = False

    def _smallest(self) -> str:
        if self._owner is None:
            return keys.CREATED
        names = sets_of(self._owner, self._selection)
        if len(names) == 1:
            return names[0]
        with translated():
            pipe = self._store.client.pipeline(transaction=False)
            for name in names:
                pipe.zcard(name)
            return min(zip(pipe.execute(), names, strict=True))[1]

    def read(self, count: int) -> Iterator[tuple[str, Record | None]]:
        """The next entries, each with its record if that is one of those looked for."""
        client, after_ms = self._store.client, self._selection.after_ms
        newest = f"({self.last}" if self.last else "+"
        oldest = "-" if after_ms is None else f"[{after_ms + 1:013d}"
        with translated():
            members = client.zrevrangebylex(self._name, newest, oldest, start=0, num=count)
            texts = client.mget([keys.record(task_of(one)) for one in members]) if members else []
        self.has_read, self.is_at_end = True, len(members) < count
        for member, text in zip(members, texts, strict=True):
            yield member, self._checked(member, as_record(text or ""))

    def _checked(self, member: str, record: Record | None) -> Record | None:
        if record is None or not record.created_at:
            if created_ms_of(member) < self._store.now_ms() - ABSENT_MS:
                self._dropped.append(member)
            return None
        if not self._is_in_its_set(member, record):
            if is_over(member, record):
                self._dropped.append(member)
            return None
        is_wanted = self._owner in (None, record.owner) and self._selection.matches(record)
        return record if is_wanted else None

    def _is_in_its_set(self, member: str, record: Record) -> bool:
        if self._name == keys.CREATED:
            return member == place(record)
        sets = (status_set(record), *other_sets(record, self._selection.metadata))
        return (self._name, member) in sets

    def page(self, found: list[Record], last: str | None) -> Page:
        """The page, once the entries that can never be right again are dropped."""
        if self._dropped:
            with translated():
                self._store.client.zrem(self._name, *self._dropped)
        return Page(found, last)


def _checked_cursor(cursor: str | None) -> str | None:
    if cursor is not None and not PLACE.fullmatch(cursor):
        raise InvalidRequest.of({"field": "cursor", "reason": "is not the next_cursor of a page"})
    return cursor
