"""One attempt at a task: claim, generate, append, finish. Plain functions, without Celery.

`run` is what the Celery task is a shell around: given a delivery, a store and a source of engines
it brings the task to its next state and says what is left for the broker to do.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import structlog

from textgen import admission, outcomes
from textgen.caller import Caller
from textgen.draft import Draft
from textgen.engines.base import Chunk, Engine, EngineRequest, Finish
from textgen.errors import (
    ConfigurationError,
    EngineError,
    PermanentEngineError,
    StoreUnavailable,
    TransientEngineError,
)
from textgen.heartbeat import Heartbeat, Running
from textgen.lifecycle import Failure, Record, Status
from textgen.logs import outline
from textgen.messages import Delivery
from textgen.persistence import HandBack, persist
from textgen.settings import Settings
from textgen.store import Store
from textgen.store.answers import Claim, Claimed, Moved, Terms, Transition, Verdict

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Worker:
    """What an attempt works with."""

    name: str
    settings: Settings
    store: Store
    heartbeat: Heartbeat
    #: Finds the engine by name, set up; None asks for the default one.
    engine: Callable[[str | None], Engine]


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
        StoreUnavailable: Before anything began.
        HandBack: A finished text could not be recorded in time.
    """
    claim = _claim(delivery, token, worker)
    if claim.outcome is Claimed.BUSY:
        return Parked(delivery.record, delivery.terms, claim.wait_s)
    if claim.outcome is not Claimed.TAKEN or claim.record is None:
        return Ended(claim.record)
    if delivery.is_foreign and claim.record.attempt == 1:
        _count(claim.record, worker)
    running = Running(claim.record, token, _limit_s(delivery.terms, worker.settings))
    with worker.heartbeat.keeping(running):
        return _Attempt(running, delivery.terms, worker).run()


def _count(record: Record, worker: Worker) -> None:
    """Have what a foreign producer asked for billed like all else."""
    try:
        admission.admit(
            worker.store, worker.settings, record, Caller(record.owner), is_free=True, is_delayed=True
        )
    except StoreUnavailable as exc:
        log.warning("task of a foreign producer not billed", task_id=record.task_id, reason=str(exc))


def _limit_s(terms: Terms, settings: Settings) -> float:
    """Seconds that the attempt may take: what was asked for, never above the worker's own limit."""
    return min(terms.attempt_s or settings.attempt_timeout_s, settings.attempt_timeout_s)


def _claim(delivery: Delivery, token: str, worker: Worker) -> Claim:
    """Claim the task; settle first whatever stands in the way and is nobody's business any more."""
    store, record = worker.store, delivery.record
    while True:
        claim = store.claim(record, delivery.terms, token, worker.name)
        known = claim.record or record
        if claim.outcome is Claimed.MOVED:
            record = known
        elif claim.outcome is Claimed.LAPSED:
            record = outcomes.lapse(store, worker.settings, known, claim.rev).record or known
        elif claim.outcome is Claimed.EXPIRED and claim.record is None:
            store.bury(outcomes.failed(known, outcomes.DEADLINE), delivery.terms.ttl_ms)
            return Claim(Claimed.ENDED, store.get(known.task_id))
        elif claim.outcome in (Claimed.EXPIRED, Claimed.STALE):
            error = outcomes.DEADLINE if claim.outcome is Claimed.EXPIRED else outcomes.QUEUE_TIMEOUT
            moved = outcomes.expire(store, known, claim.rev, error)
            return Claim(Claimed.ENDED, moved.record)
        elif claim.outcome is Claimed.CANCELLED:
            return Claim(Claimed.ENDED, outcomes.cancel(store, known.task_id).record)
        else:
            return claim


class _Attempt:
    """An attempt that holds the lease."""

    def __init__(self, running: Running, terms: Terms, worker: Worker) -> None:
        self.running = running
        self.terms = terms
        self.worker = worker
        self.store = worker.store
        self.draft = Draft(running, terms, worker.store, worker.name)

    @property
    def record(self) -> Record:
        """The task as this attempt has it."""
        return self.running.record

    def run(self) -> Parked | Ended:
        try:
            engine = self.worker.engine(self.record.params.get("engine"))
            self.running.record = self.record.but(engine=engine.name)
            finish = self._generate(engine)
        except TransientEngineError as exc:
            return self._retry(exc)
        except (PermanentEngineError, ConfigurationError) as exc:
            return self._fail(Failure(type(exc).__name__, str(exc)))
        except (StoreUnavailable, HandBack):
            raise
        except SystemExit as exc:
            return self._exited(exc)
        except Exception as exc:  # noqa: BLE001 - the one place where any failure of an attempt is recorded
            log.error("engine broke", task_id=self.record.task_id, where=outline(exc))
            return self._fail(Failure("EngineBug", f"the engine broke with {type(exc).__name__}"))
        if finish is None:
            return self._stopped()
        return self._complete(finish)

    def _generate(self, engine: Engine) -> Finish | None:
        """Append what the engine yields; None if the attempt has to stop first."""
        with closing(_iterate(engine, self._request(engine))) as pieces:
            for piece in pieces:
                if isinstance(piece, Finish):
                    self.draft.flush(is_last=True)
                    return piece if self.running.verdict is Verdict.OK else None
                if self.running.ended or not self._append(piece):
                    return None
        raise EngineError("the engine ended without a finish")

    def _request(self, engine: Engine) -> EngineRequest:
        record, params = self.record, self.record.params
        turns = record.messages or [{"role": "user", "content": record.prompt or ""}]
        return EngineRequest(
            task_id=record.task_id,
            attempt=record.attempt,
            messages=tuple(turns),
            max_tokens=params.get("max_tokens") or engine.default_max_tokens(),
            model=params.get("model"),
            temperature=params.get("temperature"),
            top_p=params.get("top_p"),
            stop=tuple(params.get("stop") or ()),
            seed=params.get("seed"),
            metadata=record.metadata,
        )

    def _append(self, chunk: Chunk) -> bool:
        """Add a chunk to the log; False if the attempt has to stop."""
        self.draft.add(chunk)
        if self.running.overrun_s > 0:
            self.worker.heartbeat.end(self.running, outcomes.ATTEMPT_TIMEOUT)
            return False
        self.draft.flush()
        if self.running.verdict is Verdict.OVERDUE:
            self.worker.heartbeat.end(self.running, outcomes.DEADLINE)
        return self.running.verdict is Verdict.OK

    # Endings

    def _complete(self, finish: Finish) -> Parked | Ended:
        ended = self.record.but(
            status=Status.COMPLETED,
            result=self.draft.text,
            error=None,
            finish_reason=finish.reason,
            usage=finish.usage,
            model=finish.model or self.record.params.get("model"),
        )
        return self._settle(ended)

    def _fail(self, error: Failure, is_dead: bool = False) -> Parked | Ended:
        partial = self.draft.text or None
        failures = self.record.failures + 1
        ended = outcomes.failed(self.record.but(failures=failures, result=partial), error)
        return self._settle(ended, is_dead)

    def _retry(self, exc: TransientEngineError) -> Parked | Ended:
        failures, settings = self.record.failures + 1, self.worker.settings
        error = Failure(type(exc).__name__, str(exc), retryable=True)
        if failures >= settings.max_attempts:
            return self._fail(error, is_dead=True)
        wait_s = outcomes.retry_delay_s(settings, failures, exc.retry_after_s)
        waiting = self.record.but(status=Status.PENDING, failures=failures, error=error)
        moved = persist(
            lambda: self.store.move(waiting, token=self.running.token, due_s=wait_s, reason="retry")
        )
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
        return self._retry(TransientEngineError("the engine asked for the end of its process"))

    def _settle(self, ended: Record, is_dead: bool = False) -> Parked | Ended:
        moved = persist(lambda: self._finish(ended, is_dead))
        if moved.outcome is Moved.CANCELLED:
            return self._stopped()
        ours = moved.record is not None and moved.record.attempt == ended.attempt
        if moved.outcome is Moved.OK or (moved.outcome is Moved.ENDED and ours):
            return Ended(moved.record, by_us=True)
        return Ended(moved.record)

    def _finish(self, ended: Record, is_dead: bool) -> Transition:
        moved = self.store.move(ended, token=self.running.token, is_dead=is_dead)
        if moved.outcome is Moved.ABSENT and self.draft.restore():
            moved = self.store.move(ended.but(attempt=self.record.attempt), token=self.running.token)
        if moved.outcome is Moved.OK:
            self.store.discard(ended.task_id)
        return moved

    def _stopped(self) -> Ended:
        """The attempt was told to stop: see to it that a cancel asked for is carried out."""
        task_id = self.record.task_id
        if self.running.ended:
            return Ended(self.store.get(task_id), by_us=True)
        if self.running.verdict is Verdict.FENCED:
            return Ended(None)
        control = persist(lambda: self.store.control(task_id))
        if control and control.cancel:
            return Ended(persist(lambda: outcomes.cancel(self.store, task_id)).record)
        return Ended(persist(lambda: self.store.get(task_id)))


def _iterate(engine: Engine, request: EngineRequest) -> Generator[Chunk | Finish, None, None]:
    """The engine's pieces as a generator that can be closed."""
    yield from engine.generate(request)
