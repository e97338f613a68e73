"""What clients asked and were answered, and what was seen of the stack: one JSON object per line.

Each kind of entry is a class here; its name in lower case is the `kind` that a line begins with.
Times are seconds since 1970 by the client's clock. A reader passes over fields that it does not know.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Meta:
    """What a run promises to keep to."""

    seed: int
    stack: str
    #: The longest time to live that a record may have.
    ttl_s: float
    max_attempts: int
    #: Seconds in which every submit has to be answered, and in which a task has to end.
    answer_bound_s: float
    end_bound_s: float
    queues: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Record:
    """A record without its texts, so that a history can be shown to anybody."""

    status: str
    attempt: int
    failures: int
    result_sha256: str | None
    error_type: str | None
    #: ISO 8601, by the store's clock.
    updated_at: str
    #: Of records in `Final` only.
    owner: str | None = None
    op: str | None = None


@dataclass(frozen=True, slots=True)
class Submit:
    """A request to generate."""

    at: float
    until: float
    how: str
    #: The request's unique name; repeated requests keep it.
    op: str
    owner: str
    #: Idempotency key.
    key: str | None
    #: None: no answer came.
    status: int | None
    id: str | None
    retry_after: bool = False
    replayed: bool = False
    #: No answer came because a process was killed on purpose.
    killed: bool = False
    #: The error instead of an answer.
    failure: str | None = None
    #: Whether, after a refusal, any read showed the task. None: nobody looked.
    visible: bool | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """A request for a record."""

    at: float
    until: float
    owner: str
    id: str
    status: int | None
    record: Record | None
    #: Whose task it is, where that is known.
    owner_of: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """A request to cancel."""

    at: float
    until: float
    id: str
    status: int | None


@dataclass(frozen=True, slots=True)
class Run:
    """What the engine itself noted of an attempt."""

    at: float
    op: str | None
    id: str
    attempt: int
    pid: int
    #: `begin`, or `end`: the text is complete.
    step: str


@dataclass(frozen=True, slots=True)
class Store:
    """A loss of data: `emptied` (all records) or `lost_all` (records and messages)."""

    at: float
    event: str


@dataclass(frozen=True, slots=True)
class Ttl:
    """A look at all records: key → milliseconds to live, as Redis' PTTL gives them."""

    at: float
    keys: dict[str, int]


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process holds, and what its servers hold for all."""

    at: float
    process: str
    rss_mb: float
    fds: int
    redis_clients: int | None = None
    connections: int | None = None
    channels: int | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """How many tasks end per second, some time after a fault was over."""

    at: float
    row: int | None
    since_heal_s: float
    baseline_per_s: float
    per_s: float


@dataclass(frozen=True, slots=True)
class Webhook:
    """A delivery that a receiver got."""

    at: float
    id: str
    webhook_id: str
    event: str


@dataclass(frozen=True, slots=True)
class Leak:
    """A place where text of a prompt, or a secret, was found."""

    at: float
    where: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. `id` is None where the message was no task's."""

    id: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Final:
    """What is left at the end, when all is quiet."""

    at: float
    records: dict[str, Record]
    #: Queue → messages in it, unacknowledged ones included.
    queues: dict[str, int]
    dead: list[Letter]


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a row of the fault matrix begins and ends; for reports."""

    at: float
    row: int
    name: str
    step: str


Entry = Meta | Submit | Read | Cancel | Run | Store | Ttl | Resources | Rate | Webhook | Leak | Final | Fault
KINDS: dict[str, type[Entry]] = {cls.__name__.lower(): cls for cls in Entry.__args__}
_NAMES = {cls: frozenset(f.name for f in fields(cls)) for cls in (*KINDS.values(), Record, Letter)}


class History:
    """The history of one run, in a file; any number of threads write to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def write(self, kind: str, **what: Any) -> None:
        """Add an entry; raises ValueError where there is no such kind."""
        if kind not in KINDS:
            raise ValueError(f"a history has no entries of kind {kind!r}")
        line = json.dumps({"kind": kind, **what}, separators=(",", ":"))
        with self._lock, self.path.open("a") as file:
            file.write(f"{line}\n")

    def read(self) -> Iterator[Entry]:
        """All entries, in the order of writing."""
        with self.path.open() as file:
            yield from map(parse, map(json.loads, file))


def parse(line: dict[str, Any]) -> Entry:
    """The entry that a line holds."""
    cls, what = KINDS[line["kind"]], dict(line)
    if what.get("record"):
        what["record"] = _make(Record, what["record"])
    if cls is Final:
        what["records"] = {name: _make(Record, record) for name, record in what["records"].items()}
        what["dead"] = [_make(Letter, letter) for letter in what["dead"]]
    entry: Entry = _make(cls, what)
    return entry


def _make(cls: type[Any], what: dict[str, Any]) -> Any:
    names = _NAMES[cls]
    return cls(**{name: value for name, value in what.items() if name in names})
