"""Records as HTTP shows them: those of waiting tasks with an estimate of what they may expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import structlog

from textgen import client
from textgen.errors import StoreUnavailable
from textgen.lifecycle import Record, Status
from textgen.store.waiting import Outlook

log = structlog.get_logger(__name__)


def shown(records: Sequence[Record], with_outlook: bool = True) -> list[dict[str, Any]]:
    """The JSON objects of `records`; an estimate that cannot be had now is null."""
    found: dict[str, Outlook] = {}
    if with_outlook and any(record.status is Status.PENDING for record in records):
        try:
            found = client.outlooks(records)
        except StoreUnavailable as exc:
            log.warning("http.no_outlook", reason=str(exc))
    return [_object(record, found.get(record.task_id, Outlook())) for record in records]


def _object(record: Record, outlook: Outlook) -> dict[str, Any]:
    if record.status is not Status.PENDING:
        return record.as_dict()
    return {**record.as_dict(), **asdict(outlook)}
