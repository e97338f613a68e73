"""Which lanes this worker consumes, and so which engines it runs and has ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textgen import lanes, routes
from textgen.lanes import Lane
from textgen.settings import Settings

if TYPE_CHECKING:
    from celery import Celery


def consumed(app: Celery, settings: Settings) -> list[Lane]:
    """The lanes that this worker takes tasks from: all, or those that `-Q` names."""
    queues = app.amqp.queues.consume_from
    return [lane for lane in lanes.every(settings) if lane.queue(settings) in queues]


def runs(app: Celery, settings: Settings, engine: str) -> bool:
    """Whether this worker runs an engine. One without lanes of its own runs wherever its tasks come."""
    return engine not in settings.lane_engines or engine in _own(app, settings)


def expected(app: Celery, settings: Settings) -> list[str]:
    """The engines to have ready before the first task.

    Raises:
        ConfigurationError: There is no default engine, or `TEXTGEN_ENGINE` means none.
    """
    found = _own(app, settings)
    is_shared = any(lane.engine is None for lane in consumed(app, settings))
    if is_shared and (settings.engine or "local" not in settings.lane_engines):
        names = (entry.engine for entry in routes.default(settings).entries)
        found += [name for name in names if name not in settings.lane_engines]
    return list(dict.fromkeys(found))


def left_to_others(app: Celery, settings: Settings) -> list[str]:
    """The engines that have lanes of their own, none of which this worker consumes."""
    return [name for name in settings.lane_engines if name not in _own(app, settings)]


def _own(app: Celery, settings: Settings) -> list[str]:
    names = (lane.engine for lane in consumed(app, settings))
    return list(dict.fromkeys(name for name in names if name))
