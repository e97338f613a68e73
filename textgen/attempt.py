"""One attempt at a task: claim, generate, append, finish. Plain functions, without Celery.

`run` is what the Celery task is a shell around: given a delivery, a store and a source of engines
it brings the task to its next state and says what is left for the broker to do.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import structlog

from textgen import caching, outcomes, routes, structured
from textgen.caching import Seat
from textgen.calls import Call
from textgen.claims import Worker, begin, count
from textgen.draft import Draft
from textgen.engines.base import Chunk, Engine, EngineRequest, Finish
from textgen.errors import (
    ConfigurationError,
    EngineError,
    EngineUnusable,
    PermanentEngineError,
    StoreBroken,
    StoreUnavailable,
    TransientEngineError,
)
from textgen.followers import Followers
from textgen.gate import Wait
from textgen.heartbeat import Running
from textgen.lifecycle import Failure, Record, Status, Usage
from textgen.logs import outline
from textgen.messages import Delivery
from textgen.persistence import HandBack, persist
from textgen.routes import Entry
from textgen.store.answers import Claimed, Moved, Terms, Transition, Verdict
from textgen.store.cache import Stored

log = structlog.get_logger(__name__)

#: Seconds after which a task that waits for another, which generates the same, looks again.
FOLLOW_S = 2.0


@dataclass(frozen=True, slots=True)
class Parked:
    """The task is not to run now: its message must come back after `wait_s` seconds."""

    record: Record
    terms: Terms
    wait_s: float
    #: Whether an attempt failed, rather than that none began.
    is_retry: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The task is terminal, or no longer this delivery's concern (`record` None)."""

    record: Record | None
    #: Whether this delivery ended it.
    by_us: bool = False


def run(delivery: Delivery, token: str, worker: Worker) -> Parked | Ended:
    """Bring a delivered task to its next state.

    Raises:
        HandBack: The store stayed away before anything began, or when a finished text was to be recorded; or
            it has lost the task.
        StoreUnavailable: In between.
    """
    seat = persist(lambda: caching.enter(worker.store, worker.settings, delivery))
    if seat.waits:
        return _follow(delivery, seat.waits, worker)
    claim, call = persist(lambda: begin(delivery, token, worker, needs_engine=not seat.stored))
    try:
        if claim.outcome is not Claimed.TAKEN:
            caching.leave(worker.store, seat, delivery.record.task_id)
        if claim.outcome is Claimed.BUSY:
            return Parked(claim.record or delivery.record, delivery.terms, claim.wait_s)
        if claim.outcome is not Claimed.TAKEN or claim.record is None:
            return Ended(claim.record)
        if delivery.is_foreign and claim.record.attempt == 1:
            count(claim.record, worker)
        if isinstance(call, Wait):
            parked = _put_off(claim.record, delivery.terms, token, call.seconds, worker)
            caching.leave(worker.store, seat, delivery.record.task_id)
            return parked
        limit_s = delivery.terms.limit_s(worker.settings.attempt_timeout_s)
        running = Running(claim.record, token, limit_s, hung=call.hung if call else None)
        with worker.heartbeat.keeping(running):
            attempt = _Attempt(running, delivery.terms, worker, call, seat)
            return attempt.serve(seat.stored) if seat.stored else attempt.run()
    finally:
        if isinstance(call, Call):
            call.give_back()


def _follow(delivery: Delivery, known: Record, worker: Worker) -> Parked | Ended:
    """Let a task wait for the one that leads, which may have claimed it already."""
    if known.status.is_terminal:
        return Ended(known)
    wait_s = worker.store.lease_s if known.status is Status.PROCESSING else FOLLOW_S
    worker.store.hold(known.task_id, wait_s)  # so that nobody takes its message for lost
    return Parked(delivery.record, delivery.terms, wait_s)


def _put_off(record: Record, terms: Terms, token: str, wait_s: float, worker: Worker) -> Parked | Ended:
    """Have a task wait that had to be claimed first, because the store did not know it."""
    waiting = record.but(status=Status.PENDING)
    moved = persist(lambda: worker.store.move(waiting, token=token, due_s=wait_s, reason="parked"))
    if moved.outcome is Moved.OK and moved.record:
        return Parked(moved.record, terms, wait_s)
    return Ended(moved.record)


class _Attempt:
    """An attempt that holds the lease."""

    def __init__(
        self, running: Running, terms: Terms, worker: Worker, call: Call | Wait | None, seat: Seat
    ) -> None:
        self.running = running
        self.terms = terms
        self.worker = worker
        self.store = worker.store
        self.call = call if isinstance(call, Call) else None
        self.draft = Draft(running, terms, worker.writer, worker.name)
        place = seat.place if seat.leads else None
        self.followers = Followers(place, self.draft, worker.heartbeat, worker.settings, worker.settle)
        running.restore = self.draft.restore
        running.on_beat = self.followers.beat

    @property
    def record(self) -> Record:
        """The task as this attempt has it."""
        return self.running.record

    def run(self) -> Parked | Ended:
        """Generate; whoever follows gets the text too."""
        try:
            return self._run()
        finally:
            self.followers.close()

    def serve(self, stored: Stored) -> Parked | Ended:
        """Complete the task by a result from the cache."""
        self.draft.add(Chunk(stored.text, tokens=0))
        self.draft.flush(is_last=True)
        return self._settle(stored.on(self.record)) if self.running.verdict is Verdict.OK else self._stopped()

    def _run(self) -> Parked | Ended:
        try:
            return self._write()
        except StoreBroken as exc:
            log.error("store broke", task_id=self.record.task_id, reason=str(exc), where=outline(exc))
            self.running.record = self.record.but(usage=None)
            return self._fail(Failure("StoreBroken", "the store cannot record what came of the attempt"))
        except (StoreUnavailable, HandBack):
            raise
        except SystemExit as exc:
            return self._exited(exc)
        except Exception as exc:  # noqa: BLE001 - the one place where any failure of an attempt is recorded
            log.error("engine broke", task_id=self.record.task_id, where=outline(exc))
            self.running.record = self.record.but(usage=None)  # which may be what broke it
            return self._fail(Failure("EngineBug", f"the engine broke with {type(exc).__name__}"))

    def _write(self) -> Parked | Ended:
        try:
            self.call = self.call or Call(routes.next_entry(self.record, self.worker.settings))
            if not self.worker.runs(self.call.entry.engine):
                return self._wait(self.record.failures, self.record.error, 0.0, "fallback")
            engine = self.worker.engine(self.call.entry.engine)
        except (EngineError, ConfigurationError) as exc:
            return self._go_on(exc)
        model = routes.model_of(self.call.entry, self.worker.settings)
        self.running.record = self.record.but(engine=engine.name, model=model)
        try:
            finish = self._generate(engine, self.call)
            self._check_form(finish)
        except (TransientEngineError, EngineUnusable) as exc:
            return self._go_on(exc)
        except (PermanentEngineError, ConfigurationError) as exc:
            self._note(exc)
            return self._fail(Failure(_word(exc), str(exc)))
        return self._stopped() if finish is None else self._complete(finish)

    def _generate(self, engine: Engine, call: Call) -> Finish | None:
        """Append what the engine yields; None if the attempt has to stop first."""
        with closing(call.watch(engine.generate(self._request(engine, call.entry)))) as pieces:
            try:
                for piece in pieces:
                    if isinstance(piece, Finish):
                        self.draft.flush(is_last=True)
                        return piece if self.running.verdict is Verdict.OK else None
                    if self.running.ended or not self._append(piece):
                        return None
            finally:
                self.draft.flush()
        raise EngineError("the engine ended without a finish")

    def _check_form(self, finish: Finish | None) -> None:
        """Make sure that a finished text is of the form that was asked for; what it took counts all the same.

        Raises:
            InvalidOutput: It is not.
            UnfinishedOutput: It is not, and will not be.
        """
        wanted = self.record.params.get("response_format")
        if not wanted or finish is None:
            return
        try:
            structured.check(wanted, self.draft.text, finish.reason)
        except EngineError as exc:
            exc.provider_request_id = finish.provider_request_id
            self.running.record = self.record.but(usage=_used(finish))
            raise

    def _note(self, exc: EngineError | ConfigurationError) -> None:
        """Keep by which id a provider knows the attempt that failed."""
        self.running.record = self.record.but(provider_request_id=getattr(exc, "provider_request_id", None))

    def _request(self, engine: Engine, entry: Entry) -> EngineRequest:
        record, params = self.record, self.record.params
        turns = record.messages or [{"role": "user", "content": record.prompt or ""}]
        return EngineRequest(
            task_id=record.task_id,
            attempt=record.attempt,
            messages=tuple(turns),
            max_tokens=params.get("max_tokens") or engine.default_max_tokens(self.worker.settings),
            model=entry.model,
            temperature=params.get("temperature"),
            top_p=params.get("top_p"),
            stop=tuple(params.get("stop") or ()),
            seed=params.get("seed"),
            response_format=params.get("response_format"),
            metadata=record.metadata,
        )

    def _append(self, chunk: Chunk) -> bool:
        """Add a chunk to the log; False if the attempt has to stop."""
        self.draft.add(chunk)
        if self.running.verdict is Verdict.ABSENT:
            persist(self.draft.restore)
        if self.running.overrun_s > 0:
            self.draft.flush()
            self.worker.heartbeat.end(self.running, outcomes.ATTEMPT_TIMEOUT)
            return False
        self.draft.pass_on()
        self.followers.tell()
        if self.running.verdict is Verdict.OVERDUE:
            self.worker.heartbeat.end(self.running, outcomes.DEADLINE)
        return self.running.verdict is Verdict.OK

    # Endings

    def _complete(self, finish: Finish) -> Ended:
        ended = self.record.but(
            status=Status.COMPLETED,
            result=self.draft.text,
            error=None,
            finish_reason=finish.reason,
            usage=_used(finish),
            model=finish.model or self.record.model,
            provider_request_id=finish.provider_request_id,
        )
        outcome = self._settle(ended)
        if outcome.by_us and outcome.record and outcome.record.status is Status.COMPLETED:
            self.followers.complete(outcome.record)
        return outcome

    def _fail(self, error: Failure, is_dead: bool = False) -> Parked | Ended:
        partial = self.draft.text or None
        failures = self.record.failures + 1
        ended = outcomes.failed(self.record.but(failures=failures, result=partial), error)
        return self._settle(ended, is_dead)

    def _go_on(self, exc: EngineError | ConfigurationError) -> Parked | Ended:
        """After an engine that could not write: the next of the route, a new round, or the end."""
        passes = isinstance(exc, TransientEngineError)
        error = Failure(_word(exc), str(exc), retryable=passes)
        self._note(exc)
        if self.call is None:
            return self._fail(error)
        tried = [(self.call.entry, str(exc))]
        self.running.record = record = self.record.but(
            tried=routes.noted(self.record, tried, self.record.attempt, retryable=passes)
        )
        settings, failures = self.worker.settings, record.failures + 1
        if routes.left(record, settings):
            return self._wait(record.failures, error, 0.0, "fallback")
        if not any(one["retryable"] for one in routes.this_round(record)):
            return self._fail(error)
        if failures >= settings.max_attempts:
            return self._fail(error, is_dead=True)
        wait_s = outcomes.retry_delay_s(settings, failures, self._asked_s(exc))
        return self._wait(failures, error, wait_s, "retry")

    def _asked_s(self, exc: EngineError | ConfigurationError) -> float | None:
        """Seconds that the engine asked to wait; of a route, the gate heeds what each of its engines asks."""
        several = len(routes.this_round(self.record)) > 1
        is_heeded = several and self.call is not None and self.call.is_permitted
        return None if is_heeded else getattr(exc, "retry_after_s", None)

    def _wait(self, failures: int, error: Failure | None, wait_s: float, reason: str) -> Parked | Ended:
        waiting = self.record.but(status=Status.PENDING, failures=failures, error=error)
        moved = persist(lambda: self._move(waiting, due_s=wait_s, reason=reason))
        if moved.outcome is Moved.OK and moved.record:
            return Parked(moved.record, self.terms, wait_s, is_retry=True)
        return self._stopped()

    def _exited(self, exc: SystemExit) -> Parked | Ended:
        """Let an engine end a pool's child process, whose parent takes note; no other is its to end.

        Celery's other pools would lose the slot, and never acknowledge the message. Celery ends its
        workers by subclasses of SystemExit, which are let through.
        """
        if self.worker.heartbeat.abandon or type(exc) is not SystemExit:
            raise exc
        return self._go_on(TransientEngineError("the engine asked for the end of its process"))

    def _settle(self, ended: Record, is_dead: bool = False) -> Ended:
        asked = self.record.model
        moved = persist(lambda: self._move(ended, is_dead=is_dead, asked=asked))
        if moved.outcome is Moved.CANCELLED:
            return self._stopped()
        ours = moved.record is not None and moved.record.attempt == ended.attempt
        if moved.outcome is Moved.OK or (moved.outcome is Moved.ENDED and ours):
            return Ended(moved.record, by_us=True)
        return Ended(moved.record)

    def _move(self, record: Record, **named: Any) -> Transition:
        """Move the task on; one that Redis has lost is brought back first."""
        moved = self.store.move(record, token=self.running.token, **named)
        if moved.outcome is Moved.ABSENT and self.draft.restore():
            moved = self.store.move(
                record.but(attempt=self.record.attempt), token=self.running.token, **named
            )
        return moved

    def _stopped(self) -> Ended:
        """The attempt was told to stop: see to it that a cancel asked for is carried out.

        Raises:
            HandBack: Redis has lost the task: its message has to bring it back.
        """
        task_id = self.record.task_id
        if self.running.ended:
            return Ended(self.store.get(task_id), by_us=True)
        if self.running.verdict is Verdict.FENCED:
            return Ended(None)
        control = persist(lambda: self.store.control(task_id))
        if control and control.cancel:
            return Ended(persist(lambda: outcomes.cancel(self.store, task_id)).record)
        record = persist(lambda: self.store.get(task_id))
        if record is None and control is None:
            raise HandBack("Redis has lost the task")
        return Ended(record)


def _used(finish: Finish) -> Usage | None:
    """What was used; None where the engine does not say, so that the pieces it wrote count."""
    return None if finish.usage == Usage() else finish.usage


def _word(exc: EngineError | ConfigurationError) -> str:
    """How the record's error names `exc`."""
    return getattr(exc, "word", "") or type(exc).__name__
