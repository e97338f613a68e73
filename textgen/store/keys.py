"""The names of all keys in Redis. Nothing but records lives under `task:`."""

from __future__ import annotations

#: Everything that must be published at a time: score = due, in milliseconds.
OUTBOX = "outbox"
#: When the janitor has to look at a task that is not terminal: score = milliseconds.
WATCH = "tasks:watch"
#: The newest tasks of everybody, sorted as `textgen.store.positions` says.
CREATED = "tasks:created"
#: The dead letters: score = milliseconds since 1970 at which each arrived.
DEAD = "tasks:dead"
#: Tasks that failed for good and whose message is still to be put among the dead letters.
DEADBOX = "tasks:deadbox"
#: The workers that can be given work: score = milliseconds until when each is believed to live.
WORKERS = "workers"
#: Which worker's janitor works at the moment.
LEADER = "janitor:leader"
#: What the janitor did, by kind: a hash of counters.
JANITOR_COUNTS = "janitor:counts"


def idempotency(owner: str, digest: str) -> str:
    """Which task an idempotency key of an owner leads to: a JSON string."""
    return f"idem:{owner}:{digest}"


def dead_letter(letter_id: str) -> str:
    """What is kept of one dead letter: a JSON string."""
    return f"dead:{letter_id}"


def listed(owner: str, what: str) -> str:
    """The tasks of an owner that have something in common; all sets of one owner are in one slot."""
    return f"tasks:{{{owner}}}:{what}"


def waiting(lane: str) -> str:
    """Who waits in a lane: `<task id>.<attempts so far>`, score = due, in milliseconds."""
    return f"tasks:waiting:{lane}"


def ends(lane: str) -> str:
    """The last attempts of a lane that ended: `<task id>.<attempt>`, score = milliseconds."""
    return f"tasks:ends:{lane}"


def record(task_id: str) -> str:
    """The record: a JSON string."""
    return f"task:{task_id}"


def events(task_id: str) -> str:
    """The event log, and the channel on which its entries are announced. In the record's slot."""
    return f"events:{{task:{task_id}}}"


def state(task_id: str) -> str:
    """The control fields: a hash. In the record's slot."""
    return f"state:{{task:{task_id}}}"
