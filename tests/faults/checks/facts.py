"""A history, sorted for those who judge it: by kind of entry, by task, and by what was wiped when."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any, TypeVar

from tests.faults.history import (
    Cancel,
    Entry,
    Fault,
    Final,
    Leak,
    Meta,
    Rate,
    Read,
    Record,
    Resources,
    Run,
    Store,
    Submit,
    Ttl,
    Webhook,
)

Kind = TypeVar("Kind")
TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
#: Answers that say that a task was accepted: the first one, and a repeated one.
ACCEPTED = frozenset({200, 202})


class Facts:
    """What a history tells.

    Raises:
        ValueError: The history has no `meta`, so that nothing says what it is to keep to.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        kinds: dict[type[Any], list[Any]] = defaultdict(list)
        for entry in entries:
            kinds[type(entry)].append(entry)
        if not kinds[Meta]:
            raise ValueError("the history has no meta entry")
        self.meta: Meta = kinds[Meta][0]
        self.final: Final | None = kinds[Final][-1] if kinds[Final] else None
        self.submits: list[Submit] = kinds[Submit]
        self.cancels: list[Cancel] = kinds[Cancel]
        self.runs: list[Run] = sorted(kinds[Run], key=lambda run: run.at)
        self.ttls: list[Ttl] = kinds[Ttl]
        self.resources: list[Resources] = kinds[Resources]
        self.rates: list[Rate] = kinds[Rate]
        self.webhooks: list[Webhook] = kinds[Webhook]
        self.leaks: list[Leak] = kinds[Leak]
        #: When each fault of the matrix began, and when all went on as before.
        self.troubles = _troubles(kinds[Fault])
        self.records: dict[str, Record] = self.final.records if self.final else {}
        #: Id → all that was asked of a task and answered, in order of asking; the last look included.
        self.reads = self._reads(kinds[Read])
        #: Id → the submit that was first told it.
        self.accepted = self._accepted()
        self.wipes = sorted(store.at for store in kinds[Store])
        self._lost_all = max((s.at for s in kinds[Store] if s.event == "lost_all"), default=float("-inf"))

    def _reads(self, reads: list[Read]) -> dict[str, list[Read]]:
        found: dict[str, list[Read]] = defaultdict(list)
        for read in sorted(reads, key=lambda read: read.at):
            found[read.id].append(read)
        for task_id, record in self.records.items():
            assert self.final is not None
            plain, owner, at = replace(record, owner=None, op=None), record.owner or "", self.final.at
            found[task_id].append(Read(at, at, owner, task_id, 200, plain, record.owner))
        return dict(found)

    def _accepted(self) -> dict[str, Submit]:
        first: dict[str, Submit] = {}
        for submit in sorted(self.submits, key=lambda submit: submit.until):
            if submit.id and submit.status in ACCEPTED:
                first.setdefault(submit.id, submit)
        return first

    def was_wiped(self, since: float, until: float = float("inf")) -> bool:
        """Whether records were lost in between."""
        return bisect_left(self.wipes, since) < bisect_right(self.wipes, until)

    def is_exempt(self, submit: Submit) -> bool:
        """Whether all that knew of a task, its message included, was lost after it was submitted."""
        return submit.at <= self._lost_all

    def seen(self, task_id: str) -> Iterator[list[Read]]:
        """The reads that showed a record of a task, in order, one list for each life of the store.

        A read during which records were lost is left out: nobody knows on which side it fell.
        """
        shown = [r for r in self.reads.get(task_id, ()) if r.record and not self.was_wiped(r.at, r.until)]
        for _, reads in groupby(shown, key=lambda read: bisect_right(self.wipes, read.at)):
            yield list(reads)

    def endings(self, task_id: str) -> Iterator[list[Record]]:
        """The terminal records that were shown of a task, one list for each life of the store."""
        for reads in self.seen(task_id):
            ended = [read.record for read in reads if read.record and read.record.status in TERMINAL]
            if ended:
                yield ended


def _troubles(faults: list[Fault]) -> list[tuple[float, float]]:
    """Begin and end of each fault; one that never ended lasts."""
    begun: dict[int, float] = {}
    found: list[tuple[float, float]] = []
    for fault in sorted(faults, key=lambda fault: fault.at):
        if fault.step == "begin":
            begun[fault.row] = fault.at
        elif fault.row in begun:
            found.append((begun.pop(fault.row), fault.at))
    return found + [(at, float("inf")) for at in begun.values()]
