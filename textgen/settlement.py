"""Settles tasks that have ended: gives reservations back, bills, and lets the next ones into the lane.

Whoever ends a task has made its entry in `keys.UNSETTLED` due before. So whoever gets there first settles it,
and where nobody does, the janitor will.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from textgen.errors import BrokerUnavailable, StoreUnavailable
from textgen.lifecycle import Record, Status
from textgen.settings import Settings
from textgen.store import Store, meter
from textgen.store.answers import Terms

log = structlog.get_logger(__name__)

#: Seconds between two looks at a task that goes on.
LOOK_S = 300.0


#: Seconds until the next look at one that somebody was about to end.
ENDING_S = 2.0


class Send(Protocol):
    """Publishes the message of a recorded task, as `GenerateTask.send` does."""

    def __call__(self, record: Record, terms: Terms, delay_s: float = 0.0) -> None: ...


def settle(store: Store, settings: Settings, task_id: str) -> list[str]:
    """Settle a task if it has ended; the ids that may be published instead.

    Raises:
        StoreUnavailable: Redis did not answer; the janitor will settle it.
    """
    held, control = meter.find(store, task_id)
    if held is None or control is None or not Status(control.status).is_terminal:
        return []
    return meter.settle(store, held, control, settings.owner_share)


def settle_now(store: Store, settings: Settings, task_id: str, send: Send) -> None:
    """Settle a task if it has ended, and publish what comes into its lane instead.

    What cannot be done now is left to the janitor.
    """
    try:
        publish(store, settle(store, settings, task_id), send)
    except (StoreUnavailable, BrokerUnavailable) as exc:
        log.warning("left to the janitor to settle", task_id=task_id, reason=str(exc))


def sweep(store: Store, settings: Settings, task_id: str, send: Send) -> bool:
    """Settle a task that has ended or was never recorded; False if it goes on.

    Raises:
        StoreUnavailable, BrokerUnavailable: One of them did not answer.
    """
    held, control = meter.find(store, task_id)
    if control is not None and not Status(control.status).is_terminal and held is not None:
        return False
    publish(
        store, meter.settle(store, held or meter.Held(task_id, "", 0), control, settings.owner_share), send
    )
    return True


def publish(store: Store, ids: list[str], send: Send) -> None:
    """Publish tasks that were let into their lane.

    Raises:
        StoreUnavailable, BrokerUnavailable: One of them did not answer; the outbox has the rest.
    """
    for task_id in ids:
        control, record = store.control(task_id), store.get(task_id)
        if control is not None and record is not None and record.status is Status.PENDING:
            send(record, control.terms)
