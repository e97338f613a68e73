"""Keeps the indexes of tasks up with their states: what to send before and after each change of one.

A place is taken before the change and left after it, so that a crash in between leaves one too many;
readers hold each against its record. See `textgen.store.positions`.
"""

from __future__ import annotations

from typing import Any

from textgen.lifecycle import Record, Status
from textgen.settings import get_settings
from textgen.store import keys, scripts
from textgen.store.positions import left_by, other_sets, place, status_set

#: Milliseconds that control fields outlive their task, see `lua/prelude.lua`; no entry lives longer.
MARGIN_MS = 2 * 3_600_000

Command = tuple[Any, ...]


def _take(record: Record, places: list[tuple[str, str]], life_ms: int) -> Command:
    settings = get_settings()
    # Without terms at hand, those of most tasks; the owner's longest is known to Redis.
    life_ms = (life_ms or (settings.deadline_s + settings.task_ttl_s) * 1000) + MARGIN_MS
    names = [keys.listed(record.owner, "life"), *(name for name, _ in places)]
    members = [member for _, member in places]
    return scripts.command("index", names, [life_ms, settings.max_tasks_listed, *members])


def enter(record: Record, life_ms: int = 0) -> list[Command]:
    """Take all places of a task; repeated, it changes nothing.

    Args:
        record: As it is about to be, with the time at which it was submitted.
        life_ms: Milliseconds that its record may live from now on.
    """
    if not record.created_at:
        return []
    places = [status_set(record), *other_sets(record, get_settings().metadata_keys)]
    return [("ZADD", keys.CREATED, 0, place(record)), _take(record, places, life_ms)]


def change(record: Record) -> list[Command]:
    """Take the places of a task whose status is about to be that of `record`."""
    if not record.created_at:
        return []
    places = [status_set(record)]
    if record.engine:
        places += other_sets(record, ())
    return [_take(record, places, 0)]


def leave(record: Record) -> list[Command]:
    """Leave the places of a task that has become what `record` shows."""
    return [("ZREM", name, member) for name, member in left_by(record)] if record.created_at else []


def forget(record: Record) -> list[Command]:
    """Leave all places of a task that is gone."""
    if not record.created_at:
        return []
    ended = record if record.status.is_terminal else record.but(status=Status.CANCELLED)
    places = [status_set(record), *other_sets(record, get_settings().metadata_keys), *left_by(ended)]
    return [("ZREM", keys.CREATED, place(record)), *(("ZREM", name, member) for name, member in places)]
