"""Celery's result backend: reads and writes the record, so that there is no second result store.

Celery calls it for successes, failures, revokes and deaths, in the process that ran the attempt or
in the worker's main process. The attempt's token travels with the request, so that even a main
process that outlived its child's attempt cannot end somebody else's.
"""

from __future__ import annotations

import time
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import states
from celery.backends.base import BaseBackend
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celery.exceptions import TimeoutError as CeleryTimeoutError

from textgen import outcomes
from textgen.errors import GenerationFailed, TextgenError
from textgen.lifecycle import Failure, Record, Status, is_task_id
from textgen.settings import get_settings
from textgen.store import open_store
from textgen.store.subscriber import wait_until_terminal

#: The record's status → Celery's.
CELERY_STATES = {
    Status.PENDING: states.PENDING,
    Status.PROCESSING: states.STARTED,
    Status.COMPLETED: states.SUCCESS,
    Status.FAILED: states.FAILURE,
    Status.CANCELLED: states.REVOKED,
}


class RecordBackend(BaseBackend):
    """The record as Celery's result."""

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **_: Any
    ) -> Any:
        """Record what nobody else has: an ending that the attempt could not write itself."""
        token: Any = getattr(request, "token", None)
        if not is_task_id(task_id):
            return result
        if state == states.REVOKED:
            outcomes.cancel(open_store(), task_id)
        elif state == states.FAILURE and token is None:
            self._fail_unsubmitted(task_id)
        elif state == states.FAILURE and not isinstance(result, GenerationFailed):
            self._fail_attempt(task_id, token, _failure_of(result))
        return result

    def _fail_attempt(self, task_id: str, token: str, error: Failure) -> None:
        store = open_store()
        record = store.get(task_id)
        if record is not None and not record.status.is_terminal:
            store.move(outcomes.failed(record, error), token=token)

    def _fail_unsubmitted(self, task_id: str) -> None:
        """Say of a link of a chain that it will never be submitted, because one before it failed."""
        error = Failure("upstream_failed", "a task before this one in its chain failed")
        record = Record(task_id, status=Status.FAILED, error=error, finish_reason="error")
        open_store().bury(record, get_settings().task_ttl_s * 1000)

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        record = open_store().get(str(task_id)) if is_task_id(task_id) else None
        return _meta(record, task_id)

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Any = None,
    ) -> dict[str, Any]:
        """Wait for a task, woken by its announcement; a task not yet submitted is waited for.

        Raises:
            celery.exceptions.TimeoutError: It was not terminal in time.
        """
        give_up = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 2.0 if give_up is None else min(2.0, give_up - time.monotonic())
            record = wait_until_terminal(open_store(), task_id, max(0.0, left), must_exist=False)
            if record is not None and record.status.is_terminal:
                return _meta(record, task_id)
            if on_interval:
                on_interval()
            if give_up is not None and time.monotonic() >= give_up:
                state = record.status.value if record else "unknown"
                raise CeleryTimeoutError(f"task {task_id} is {state} after {timeout} s")

    def encode_result(self, result: Any, state: str) -> Any:
        """Pass results on as they are: the record holds what is to be kept of them."""
        return result

    def _forget(self, task_id: str) -> None:
        """Leave the record to its TTL: others may read it."""

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        return isinstance(exc, TextgenError)


def _failure_of(exc: Any) -> Failure:
    if isinstance(exc, ExceptionInfo):
        exc = exc.exception
    if isinstance(exc, TimeLimitExceeded):
        return outcomes.ATTEMPT_TIMEOUT
    if isinstance(exc, WorkerLostError):
        return outcomes.WORKER_LOST
    return Failure(type(exc).__name__, f"the worker gave the task up ({type(exc).__name__})")


def _meta(record: Record | None, task_id: str) -> dict[str, Any]:
    if record is None:
        return {"task_id": task_id, "status": states.PENDING, "result": None, "traceback": None}
    result: Any = record.result
    if record.status is Status.FAILED and record.error:
        result = GenerationFailed(f"{record.error.type}: {record.error.message}")
    elif record.status is Status.CANCELLED:
        result = TaskRevokedError("cancelled")
    elif record.status is not Status.COMPLETED:
        result = None
    return {
        "task_id": task_id,
        "status": CELERY_STATES[record.status],
        "result": result,
        "traceback": None,
        "date_done": record.finished_at,
    }
