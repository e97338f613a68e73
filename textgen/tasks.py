"""The Celery tasks: `generate`, a thin shell around `textgen.attempt.run`."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import structlog
from celery.exceptions import Ignore, Reject
from kombu.utils import json as kombu_json

from textgen import attempt, engines, lanes, messages, options, persistence, serving, settlement
from textgen.celery import app
from textgen.claims import Worker
from textgen.draft import Writer
from textgen.errors import BrokerUnavailable, ConfigurationError, GenerationFailed, StoreUnavailable
from textgen.gate import Gate
from textgen.heartbeat import Heartbeat, give_up_child
from textgen.hooks import GenerateTask
from textgen.lifecycle import Record, Status
from textgen.settings import get_settings
from textgen.store import open_store

log = structlog.get_logger(__name__)

#: The attributes of Celery's request that the envelope's options come back as.
RECEIVED_AS = {"link": "callbacks", "link_error": "errbacks", "group_id": "group"}


@lru_cache(maxsize=4)
def _heartbeat(pid: int) -> Heartbeat:
    return Heartbeat(open_store(), get_settings().attempt_margin_s, give_up_child())


@lru_cache(maxsize=4)
def _writer(pid: int) -> Writer:
    return Writer(open_store())


def _worker(name: str) -> Worker:
    return Worker(
        name=name,
        settings=get_settings(),
        store=open_store(),
        heartbeat=_heartbeat(os.getpid()),
        writer=_writer(os.getpid()),
        engine=engines.get_engine,
        runs=lambda engine: serving.runs(app, get_settings(), engine),
        gate=Gate(open_store(), get_settings()),
        settle=lambda task_id: settlement.settle_now(open_store(), get_settings(), task_id, generate.send),
    )


def _delivery(request: Any, kwargs: dict[str, Any]) -> messages.Delivery:
    envelope = {name: getattr(request, RECEIVED_AS.get(name, name), None) for name in messages.ENVELOPE}
    for name in ("time_limit", "soft_time_limit"):
        envelope.pop(name)
    kept = {name: value for name, value in envelope.items() if value}
    header = getattr(request, messages.HEADER, None)
    store = open_store()
    now_ms = persistence.persist(store.now_ms)
    return messages.read(
        request.id,
        [],
        kwargs,
        header,
        kombu_json.dumps(kept),
        get_settings(),
        now_ms,
        limits_s=request.timelimit or (),
        expires=request.expires,
    )


@app.task(name="textgen.tasks.generate", base=GenerateTask, bind=True, throws=(GenerationFailed,))
def generate(self: GenerateTask, prompt: str | None = None, **request: Any) -> str:
    """Generate text.

    Submit it with `generate.delay("…")`, `.apply_async(…)`, a signature, a group or a chain (the
    text of one link is the prompt of the next); `AsyncResult.get()` gives the text.

    Args:
        self: The task.
        prompt: The text to go on from; or give `messages`.
        **request: Any other field of `textgen.requests.GenerationRequest`.

    Returns:
        The text.

    Raises:
        GenerationFailed: The task is FAILED; the message says why.
    """
    if getattr(self.request, "token", None) is None:
        raise ConfigurationError("generate runs in workers only: submit it with generate.delay(…)")
    structlog.contextvars.bind_contextvars(task_id=self.request.id)
    try:
        given = request if prompt is None else {"prompt": prompt, **request}
        delivery = _delivery(self.request, given)
        if persistence.persist(lambda: _send_on(self, delivery)):
            raise Ignore()
        outcome = attempt.run(delivery, self.request.token, _worker(self.request.hostname or ""))
        settlement.settle_now(open_store(), get_settings(), self.request.id, self.send)
        return _conclude(self, outcome)
    except (StoreUnavailable, BrokerUnavailable, persistence.HandBack) as exc:
        log.error("message handed back", reason=str(exc))
        raise Reject(str(exc), requeue=True) from exc
    finally:
        structlog.contextvars.unbind_contextvars("task_id")


def _send_on(task: GenerateTask, delivery: messages.Delivery) -> bool:
    """Send a task to its engine's own lane if this worker does not run that engine.

    So it is with a task that was submitted before the engine had lanes of its own.

    Raises:
        StoreUnavailable, BrokerUnavailable: One of them did not answer.
    """
    store, known = open_store(), delivery.record
    if _is_for_us(known):
        return False
    record, control = store.get(known.task_id) or known, store.control(known.task_id)
    if record.status.is_terminal or _is_for_us(record):
        return False
    task.send(record, control.terms if control else delivery.terms)
    log.info("task sent on to the lane of its engine")
    return True


def _is_for_us(record: Record) -> bool:
    """Whether this worker runs the engine that a task is for; where that means none, the attempt says so."""
    settings = get_settings()
    try:
        return serving.runs(app, settings, lanes.next_engine(record, settings))
    except ConfigurationError:
        return True


def _conclude(task: GenerateTask, outcome: attempt.Parked | attempt.Ended) -> str:
    """Tell Celery how a delivery ended: a return, an error, or neither."""
    if isinstance(outcome, attempt.Parked):
        _park(task, outcome)
        raise Ignore()
    record = outcome.record
    if record is None or not (outcome.by_us or _goes_on(task, record)):
        if record is not None and record.status is Status.CANCELLED:
            task.send_event("task-revoked", terminated=False, signum=None, expired=False)
        elif record is not None and record.status is Status.COMPLETED and record.cached:
            task.send_event("task-succeeded", result="", runtime=0.0)  # by the attempt that it followed
        raise Ignore()
    if record.status is Status.COMPLETED:
        return record.result or ""
    if record.error is None:
        raise Ignore()
    raise GenerationFailed(f"{record.error.type}: {record.error.message}")


def _goes_on(task: GenerateTask, record: Record) -> bool:
    """Whether a redelivered, finished task has a sequel that may not be submitted yet."""
    return record.status is Status.COMPLETED and bool(
        task.request.chain or options.have_ids(task.request.callbacks)
    )


def _park(task: GenerateTask, parked: attempt.Parked) -> None:
    """Send the message to wait; if the broker refuses, the outbox sends it when it is due."""
    store = open_store()
    task_id = parked.record.task_id
    if parked.is_retry and parked.record.error:
        task.send_event("task-retried", exception=parked.record.error.type, traceback="")
    if not parked.is_retry:
        persistence.persist(lambda: store.schedule(task_id, parked.wait_s + 30.0))
    try:
        task.send(parked.record, parked.terms, parked.wait_s)
    except BrokerUnavailable:
        persistence.persist(lambda: store.schedule(task_id, parked.wait_s))
