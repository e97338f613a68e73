"""Lines: in which line of Redis a task is counted while it waits, for estimates and shares.

A line follows from what the record says alone, and stays the same for all of a task's life. Lanes, which are
queues of the broker, follow from the engine that the next attempt is for: a task of several engines changes
its lane, but not its line.
"""

from __future__ import annotations

from textgen.lifecycle import Lane, Record
from textgen.settings import Settings

KINDS: tuple[Lane, ...] = ("interactive", "bulk")


def every(settings: Settings) -> list[str]:
    """The names of all lines there are."""
    return [_name(engine, kind) for engine in ("", *settings.lane_engines) for kind in KINDS]


def line_of(record: Record, settings: Settings) -> str:
    """The line of a task: that of the engine named first if it has lanes of its own, else that of all."""
    named = record.params.get("engine") or settings.engine or "local"
    engine = named.partition(",")[0].partition("/")[0].strip()
    return _name(engine if engine in settings.lane_engines else "", record.lane)


def _name(engine: str, kind: Lane) -> str:
    return f"{engine}.{kind}" if engine else kind
