"""Which lanes this worker consumes, and so which engines it runs and has ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textgen import lanes
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


def expected(app: Celery, settings: Settings) -> list[str | None]:
    """The engines to have ready before the first task; None: the default one."""
    found: list[str | None] = [*_own(app, settings)]
    default = lanes.default_engine(settings)
    is_shared = default not in settings.lane_engines
    if is_shared and any(lane.engine is None for lane in consumed(app, settings)):
        found.append(None)
    return found


def left_to_others(app: Celery, settings: Settings) -> list[str]:
    """The engines that have lanes of their own, none of which this worker consumes."""
    return [name for name in settings.lane_engines if name not in _own(app, settings)]


def _own(app: Celery, settings: Settings) -> list[str]:
    names = (lane.engine for lane in consumed(app, settings))
    return list(dict.fromkeys(name for name in names if name))
