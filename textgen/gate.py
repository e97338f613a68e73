"""The gate in front of engines: asked before a claim, so that waiting costs neither slot nor attempt.

It knows which of the engines that a task may go to can be called now, and tells all workers what became
of the calls: limits that fill up, providers that ask to wait, circuits that open and close again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import structlog

from textgen import engine_limits, engines, routes
from textgen.calls import Call
from textgen.engines.base import Allowance, Chunk, Finish
from textgen.errors import StoreUnavailable
from textgen.lifecycle import Record
from textgen.routes import Entry
from textgen.settings import Settings
from textgen.store import Store, circuits, permits
from textgen.store.permits import Candidate, Granted, Refused, Told

log = structlog.get_logger(__name__)

#: Seconds that pass between permit and call at the most, besides the time that the provider is given.
ON_THE_WAY_S = 30.0
#: By how much a wait without a place in a line is made longer by chance: at the most by this part of it,
#: and by so many seconds.
SPREAD, SPREAD_S = 0.5, 0.5


@dataclass(frozen=True, slots=True)
class Wait:
    """None of the engines may be called now."""

    seconds: float


class Gate:
    """The gate of one process.

    Args:
        store: What all workers know.
        settings: Routes, limits and how circuits behave.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        patience_s = settings.provider_timeout_s + ON_THE_WAY_S
        self._lasting = permits.Terms(patience_s, settings.breaker_reset_s, patience_s)

    def ask(self, record: Record, permit_id: str) -> Call | Wait:
        """Which engine the task may go to now, or how long it has to wait for one.

        Args:
            record: The task as it is known.
            permit_id: New for each delivery.

        Raises:
            StoreUnavailable: Redis did not answer.
            ConfigurationError: Its engine or route is none here.
        """
        entries = self.entries(record)
        candidates = self._candidates(entries)
        if not candidates[0].account:
            return Call(entries[0])
        tokens = sum(routes.most_tokens(record, self.settings, entries))
        answer = permits.ask(self.store, permit_id, record.task_id, tokens, self._lasting, candidates)
        if isinstance(answer, Refused):
            return Wait(_spread(answer))
        passed_over = tuple(zip(entries, answer.passed_over, strict=False))
        if not answer.account:
            return Call(entries[answer.place], passed_over)
        return Call(entries[answer.place], passed_over, self, answer)

    def entries(self, record: Record) -> tuple[Entry, ...]:
        """The engines that the task may go to now, in order."""
        return routes.left(record, self.settings) or routes.plan(record, self.settings)

    def _candidates(self, entries: Iterable[Entry]) -> list[Candidate]:
        """What has to be asked of each, up to the first that may always be called."""
        found = []
        for entry in entries:
            found.append(candidate(entry.engine, self.settings))
            if not found[-1].account:
                break
        return found

    # What calls tell. An attempt goes on whether others hear of it or not.

    def began(self, permit: Granted, piece: Chunk | Finish) -> None:
        """The provider's answer began."""
        quota = piece.quota if isinstance(piece, Chunk) else None
        with _in_vain():
            if permit.is_try:
                self._report(permit, is_failure=False)
            if quota or permit.is_counted or permit.is_try:
                requests, tokens = (_told(quota.requests), _told(quota.tokens)) if quota else (None, None)
                permits.answered(self.store, permit, requests, tokens)

    def ended(self, permit: Granted, is_failure: bool, has_begun: bool, pause_s: float | None) -> None:
        """The call is over."""
        with _in_vain():
            # the first piece has shown already that a provider is back
            if is_failure or (permit.is_unsteady and not (permit.is_try and has_begun)):
                self._report(permit, is_failure)
            is_well = permit.is_unsteady and not is_failure and pause_s is None
            is_counted = (permit.is_counted or permit.is_try) and not has_begun
            if is_counted or is_well or pause_s is not None:
                counted = permit if is_counted else replace(permit, window_ms=0)
                permits.answered(self.store, counted, pause_s=pause_s, is_well=is_well)

    def left_off(self, permit: Granted) -> None:
        """The call was left off before anything came of it."""
        with _in_vain():
            if permit.is_counted or permit.is_try:
                permits.answered(self.store, permit)

    def give_back(self, permit: Granted) -> None:
        """No call was made."""
        with _in_vain():
            if permit.is_counted or permit.is_try:
                permits.give_back(self.store, permit)

    def _report(self, permit: Granted, is_failure: bool) -> None:
        if not permit.has_circuit:
            return
        state = circuits.report(permit.account, self.settings, is_failure=is_failure, is_try=permit.is_try)
        if is_failure and state == "open":
            log.warning("circuit open", account=permit.account)


def candidate(engine: str, settings: Settings) -> Candidate:
    """What has to be asked before an engine is called; without an account, nothing."""
    with suppress(Exception):  # whatever it is, it says so when it is called
        kind, limit = engines.engine_class(engine), engine_limits.of(engine, settings)
        if kind.is_remote or limit.is_one:
            window_ms = int(limit.window_s * 1000)
            return Candidate(kind.account(settings), kind.is_remote, limit.requests, limit.tokens, window_ms)
    return Candidate("")


def _spread(refused: Refused) -> float:
    """Seconds to wait: by chance a little more, unless all have a time of their own."""
    if refused.is_in_line:
        return refused.wait_s
    longest = refused.wait_s * (1 + SPREAD) + SPREAD_S
    return random.uniform(refused.wait_s, longest)  # noqa: S311 - jitter, not a secret


def _told(allowance: Allowance) -> Told | None:
    if allowance.remaining is None or allowance.reset_s is None:
        return None
    return Told(allowance.remaining, max(0, round(allowance.reset_s * 1000)), allowance.limit)


@contextmanager
def _in_vain() -> Iterator[None]:
    """Go on where the store is away and others cannot be told."""
    try:
        yield
    except StoreUnavailable as exc:
        log.warning("others not told of a call", reason=str(exc))
