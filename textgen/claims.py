"""How an attempt begins: which engine may be called, and the claim of the task for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from textgen import admission, outcomes, routes
from textgen.caller import Caller
from textgen.calls import Call
from textgen.draft import Writer
from textgen.engines.base import Engine
from textgen.errors import ConfigurationError, StoreUnavailable
from textgen.gate import Gate, Wait
from textgen.heartbeat import Heartbeat
from textgen.lifecycle import Record
from textgen.messages import Delivery
from textgen.settings import Settings
from textgen.store import Store
from textgen.store.answers import Claim, Claimed, Terms

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """What an attempt works with."""

    name: str
    settings: Settings
    store: Store
    heartbeat: Heartbeat
    writer: Writer
    #: Finds the engine by name, set up.
    engine: Callable[[str], Engine]
    #: Whether this worker runs the engine of a name, or leaves it to those that consume its lanes.
    runs: Callable[[str], bool]
    gate: Gate
    #: Settles a task that has ended beside the one of a delivery.
    settle: Callable[[str], None]


def count(record: Record, worker: Worker) -> None:
    """Have what a foreign producer asked for billed like all else."""
    try:
        admission.admit(
            worker.store, worker.settings, record, Caller(record.owner), is_free=True, is_delayed=True
        )
    except StoreUnavailable as exc:
        log.warning("task of a foreign producer not billed", task_id=record.task_id, reason=str(exc))


def begin(
    delivery: Delivery, token: str, worker: Worker, needs_engine: bool = True
) -> tuple[Claim, Call | Wait | None]:
    """Ask which engine may be called, and claim the task for that, until both go by the same record.

    Returns:
        The claim, and what the gate said; None where it found no engine, or none is needed.
    """
    record, call = delivery.record, None
    while True:
        try:
            answer = call or (worker.gate.ask(record, token) if needs_engine else None)
        except ConfigurationError:
            answer = None  # the attempt will say so
        if isinstance(answer, Wait) and worker.store.hold(record.task_id, answer.seconds):
            return Claim(Claimed.BUSY, record, answer.seconds), answer
        call = answer if isinstance(answer, Call) else None
        claim = _claim_for(call, record, delivery.terms, token, worker)
        if claim.outcome is not Claimed.MOVED or claim.record is None:
            return claim, answer
        record = claim.record
        if call and not call.fits(worker.gate.entries(record)):
            call.give_back()
            call = None


def _claim_for(call: Call | None, record: Record, terms: Terms, token: str, worker: Worker) -> Claim:
    """Claim the task for a call, whose permit is given back if that cannot be done."""
    try:
        return _claim(_meant_for(call, record, worker), terms, token, worker)
    except BaseException:
        if call:
            call.give_back()
        raise


def _meant_for(call: Call | None, record: Record, worker: Worker) -> Record:
    """The record with engine and model that its attempt goes to, where its parameters leave them open."""
    if call is None:
        return record
    model = routes.model_of(call.entry, worker.settings)
    if routes.is_plain(record, worker.settings) and model == record.params.get("model"):
        return record
    tried = routes.noted(record, call.passed_over, record.attempt + 1, called=False)
    return record.but(engine=call.entry.engine, model=model, tried=tried)


def _claim(record: Record, terms: Terms, token: str, worker: Worker) -> Claim:
    """Claim the task; settle whatever stands in the way and is nobody's business any more.

    Returns:
        MOVED with the record as it is, where it is another than was expected.
    """
    store = worker.store
    claim = store.claim(record, terms, token, worker.name)
    known = claim.record or record
    if claim.outcome is Claimed.MOVED:
        return Claim(Claimed.MOVED, known)
    if claim.outcome is Claimed.LAPSED:
        moved = outcomes.lapse(store, worker.settings, known, claim.rev)
        return Claim(Claimed.MOVED, moved.record or known)
    if claim.outcome is Claimed.EXPIRED and claim.record is None:
        store.bury(outcomes.failed(known, outcomes.DEADLINE), terms.ttl_ms)
        return Claim(Claimed.ENDED, store.get(known.task_id))
    if claim.outcome in (Claimed.EXPIRED, Claimed.STALE):
        error = outcomes.DEADLINE if claim.outcome is Claimed.EXPIRED else outcomes.QUEUE_TIMEOUT
        moved = outcomes.expire(store, known, claim.rev, error)
        return Claim(Claimed.ENDED, moved.record)
    if claim.outcome is Claimed.CANCELLED:
        return Claim(Claimed.ENDED, outcomes.cancel(store, known.task_id).record)
    return claim
