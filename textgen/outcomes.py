"""What follows from how an attempt or a task ended: the record after each kind of ending.

Worker, janitor, cancel and result backend all write endings through these functions.
"""

from __future__ import annotations

import random

from textgen.lifecycle import Failure, Record, Status
from textgen.settings import Settings
from textgen.store import Store
from textgen.store.answers import Control, Moved, Transition
from textgen.store.log import text_of

DEADLINE = Failure("deadline", "the task did not end before its deadline", retryable=True)
WORKER_LOST = Failure("worker_lost", "the worker was lost in each of the attempts allowed", retryable=True)
QUEUE_TIMEOUT = Failure("queue_timeout", "no attempt began in the time it may wait", retryable=True)
ATTEMPT_HUNG = Failure("attempt_hung", "the attempt took too long and did not react", retryable=True)
ATTEMPT_TIMEOUT = Failure("attempt_timeout", "the attempt took longer than one may take", retryable=True)


def retry_delay_s(settings: Settings, failures: int, asked_s: float | None = None) -> float:
    """Seconds until the next attempt: exponential with full jitter in its upper half.

    Args:
        settings: Base and cap.
        failures: Failures so far, at least 1.
        asked_s: What the provider asked to wait; never undercut.
    """
    ceiling = min(settings.retry_cap_s, settings.retry_base_s * 2 ** min(failures - 1, 30))
    delay = ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
    return max(delay, asked_s or 0.0)


def failed(record: Record, error: Failure) -> Record:
    """The record of a task that failed for good."""
    return record.but(status=Status.FAILED, error=error, finish_reason="error")


def expire(store: Store, record: Record, rev: str, error: Failure = DEADLINE) -> Transition:
    """FAILED(`deadline` or `queue_timeout`), with what had been generated."""
    return store.move(with_partial(store, failed(record, error)), rev=rev)


def cancelled(store: Store, record: Record, control: Control) -> Transition:
    """CANCELLED, with the text and usage so far. The task must be flagged: its log stands still."""
    ended = record.but(
        status=Status.CANCELLED,
        finish_reason="cancelled",
        attempt=control.attempt,
        failures=control.failures,
    )
    if record.status is Status.PROCESSING:
        ended = with_partial(store, ended)
    return store.move(ended, rev=control.rev)


def cancel(store: Store, task_id: str) -> Transition:
    """Cancel a task, whatever it is doing.

    Returns:
        OK with the CANCELLED record, ENDED with the record as it stands, or ABSENT.
    """
    while True:
        flagged, record, control = store.ask_cancel(task_id)
        if not flagged or control is None:
            return Transition(Moved.ENDED if record else Moved.ABSENT, record)
        moved = cancelled(store, record or Record(task_id), control)
        if moved.outcome is not Moved.MOVED:
            return moved


def lapse(store: Store, settings: Settings, record: Record, rev: str) -> Transition:
    """Take note of an attempt whose worker fell silent: back to PENDING, or FAILED at the cap."""
    failures = record.failures + 1
    if failures >= settings.max_attempts:
        ended = with_partial(store, failed(record.but(failures=failures), WORKER_LOST))
        return store.move(ended, rev=rev, lapsed=True, is_dead=True)
    waiting = record.but(status=Status.PENDING, failures=failures)
    return store.move(waiting, rev=rev, lapsed=True, reason="worker_lost")


def lose(store: Store, settings: Settings, task_id: str, token: str) -> None:
    """Take note, with the attempt's own token, that the process which ran it is gone."""
    record = store.get(task_id)
    if record is None or record.status is not Status.PROCESSING:
        return
    failures = record.failures + 1
    if failures >= settings.max_attempts:
        ended = with_partial(store, failed(record.but(failures=failures), WORKER_LOST))
        store.move(ended, token=token, is_dead=True)
    else:
        wait_s = retry_delay_s(settings, failures)
        waiting = record.but(status=Status.PENDING, failures=failures)
        store.move(waiting, token=token, due_s=wait_s, reason="worker_lost")


def hand_back(store: Store, task_id: str, token: str) -> bool:
    """Give up an attempt without counting a failure: PENDING, published again at once.

    The attempt finds itself fenced at its next chunk.

    Returns:
        Whether it was this attempt's to give up.
    """
    record = store.get(task_id)
    if record is None or record.status is not Status.PROCESSING:
        return False
    moved = store.move(record.but(status=Status.PENDING), token=token, reason="worker_stopping")
    if moved.outcome is Moved.OK:
        store.schedule(task_id, 0.0)
    return moved.outcome is Moved.OK


def with_partial(store: Store, record: Record) -> Record:
    """The record with the text that its last attempt had added to the log."""
    return record.but(result=text_of(store, record.task_id, record.attempt) or None)
