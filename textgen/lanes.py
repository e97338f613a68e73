"""Lanes: in which queue a task waits. Two for all engines, and two more for each that has its own.

A worker consumes all lanes, or those that `celery worker -Q` names. So an engine with lanes of its own
runs only where its lanes are consumed, and workers elsewhere need not hold its model.
"""

from __future__ import annotations

from dataclasses import dataclass

from textgen import routes
from textgen.errors import ConfigurationError
from textgen.lifecycle import Lane as Kind
from textgen.lifecycle import Record
from textgen.settings import Settings

KINDS: tuple[Kind, ...] = ("interactive", "bulk")


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane."""

    kind: Kind
    #: Whose own lane it is; None: that of all engines without one.
    engine: str | None = None

    def queue(self, settings: Settings) -> str:
        """The name of its queue."""
        base = f"{settings.queue}.{self.engine}" if self.engine else settings.queue
        return f"{base}.bulk" if self.kind == "bulk" else base


def every(settings: Settings) -> list[Lane]:
    """All lanes there are."""
    return [Lane(kind, engine) for engine in (None, *settings.lane_engines) for kind in KINDS]


def lane_of(record: Record, settings: Settings) -> Lane:
    """The lane in which a task waits for its next attempt: the shared one where its engine means none here.

    So the attempt can say what is wrong, and nobody else has to.
    """
    if not settings.lane_engines:
        return Lane(record.lane)
    try:
        engine = next_engine(record, settings)
    except ConfigurationError:
        return Lane(record.lane)
    return Lane(record.lane, engine if engine in settings.lane_engines else None)


def next_engine(record: Record, settings: Settings) -> str:
    """The engine that a task's next attempt is for.

    Raises:
        ConfigurationError: Its engine means none here.
    """
    return routes.next_entry(record, settings).engine


def queue_of(record: Record, settings: Settings) -> str:
    """The name of the queue in which a task waits for its next attempt."""
    return lane_of(record, settings).queue(settings)


def of_queue(name: str, settings: Settings) -> Lane | None:
    """The lane whose queue has this name, if there is one."""
    return next((lane for lane in every(settings) if lane.queue(settings) == name), None)
