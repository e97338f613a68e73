"""Permits to call engines: what all workers together know of limits, pauses and circuits, in Redis.

Everything about one account of an engine stands in one slot, and each call is one script.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from textgen.store import Store, keys, scripts
from textgen.store.connection import translated

#: What a pause may be multiplied with, so that not all come back at once.
CHANCE = (0.75, 1.25)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that a permit is asked for."""

    #: By what its provider counts; empty: there is nothing to ask, it may always be called.
    account: str
    has_circuit: bool = False
    #: Calls and tokens in any window; 0: no limit.
    requests: int = 0
    tokens: int = 0
    window_ms: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What a provider told of one of its limits."""

    remaining: int
    #: Milliseconds until all of it is there again.
    reset_ms: int
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things last, in seconds."""

    #: After this a permit whose answer did not begin is given up for lost: its worker has died.
    lost_s: float
    #: After this an open circuit is tried again, by one task.
    reset_s: float
    #: This long one such try may take.
    try_s: float


@dataclass(frozen=True, slots=True)
class Granted:
    """A permit."""

    account: str
    #: Its name in the sets: `<tokens>|<id>`.
    name: str
    at_ms: int
    window_ms: int
    #: Which of the candidates it is for, and why not those before it.
    place: int
    passed_over: tuple[str, ...]
    has_circuit: bool
    #: Whether its call is to show that the provider is back.
    is_try: bool
    #: Whether failures or pauses are on record that a success makes good.
    is_unsteady: bool
    #: Whether it is counted, so that its answer must be told.
    is_counted: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """No engine may be called now."""

    wait_s: float
    #: Why not each of the candidates: `at its limit`, `paused` or `circuit open`.
    reasons: tuple[str, ...]
    #: Whether a place in the line was given, so that all come at different times.
    is_in_line: bool


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of an account, for people."""

    circuit: str
    #: Failures in a row.
    failures: int
    #: Seconds until the provider is tried again, or asked again after it told to wait.
    retry_s: float
    paused_s: float
    #: Calls and tokens that count at the moment.
    requests: int
    tokens: int
    #: Tasks that wait for room.
    waiting: int
    #: What the provider said was left, where that still holds.
    told: dict[str, int]
    #: `granted`, `parked`, `throttled` → how often, in the time since the account was idle for a day.
    counts: dict[str, int]


def _run(store: Store, name: str, *args: Any) -> list[Any]:
    with translated():
        return list(scripts.run(store.client, name, [keys.PROVIDERS], list(args)))


def ask(
    store: Store, permit_id: str, task_id: str, tokens: int, terms: Terms, candidates: Sequence[Candidate]
) -> Granted | Refused:
    """Ask for a permit for the first of `candidates` that may be called now.

    Args:
        store: Whose Redis.
        permit_id: New for each call of an engine.
        task_id: Which task waits, where none may be called.
        tokens: The most that the call may use.
        terms: How long things last.
        candidates: In the order wanted.
    """
    described = [
        (one.account, int(one.has_circuit), one.requests, one.tokens, one.window_ms) for one in candidates
    ]
    lasting = (int(seconds * 1000) for seconds in (terms.lost_s, terms.reset_s, terms.try_s))
    word, now, *rest = _run(
        store, "permit", permit_id, task_id, tokens, *lasting, *(part for one in described for part in one)
    )
    if word == "wait":
        wait_ms, place, *reasons = rest
        return Refused(int(wait_ms) / 1000, tuple(reasons), reasons[place - 1] == "at its limit")
    place, is_try, is_unsteady, is_counted, *reasons = rest
    chosen = candidates[place - 1]
    return Granted(
        account=chosen.account,
        name=f"{tokens}|{permit_id}",
        at_ms=int(now),
        window_ms=chosen.window_ms if chosen.requests or chosen.tokens else 0,
        place=place - 1,
        passed_over=tuple(reasons),
        has_circuit=chosen.has_circuit,
        is_try=bool(is_try),
        is_unsteady=bool(is_unsteady),
        is_counted=bool(is_counted),
    )


def answered(
    store: Store,
    permit: Granted,
    requests: Told | None = None,
    tokens: Told | None = None,
    pause_s: float | None = None,
    is_well: bool = False,
) -> None:
    """Take note that the provider's answer began.

    Args:
        store: Whose Redis.
        permit: Under which it was asked.
        requests: What it told of its limit of calls.
        tokens: What it told of its limit of tokens.
        pause_s: Seconds for which nobody is to call it; 0: as long as seems fit, longer each time.
        is_well: Whether it answered as it should.
    """
    pause_ms = "" if pause_s is None else int(pause_s * 1000)
    _tell(store, permit, False, *_parts(requests), *_parts(tokens), pause_ms, _chance(), int(is_well))


def give_back(store: Store, permit: Granted) -> None:
    """Give a permit back with which nothing was asked of the provider."""
    _tell(store, permit, True)


def _tell(store: Store, permit: Granted, is_given_back: bool, *more: Any) -> None:
    known = (permit.account, permit.name, permit.window_ms, int(is_given_back), permit.at_ms)
    _run(store, "answered", *known, *more)


def _parts(told: Told | None) -> tuple[Any, Any, Any]:
    if told is None:
        return "", "", ""
    return "" if told.limit is None else told.limit, told.remaining, told.reset_ms


def _chance() -> float:
    return random.uniform(*CHANCE)  # noqa: S311 - jitter, not a secret


def look(store: Store, account: str, reset_s: float) -> Account:
    """What is known of an account.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    name, now = keys.PROVIDERS + account, store.now_ms()
    with translated():
        pipe = store.client.pipeline(transaction=False)
        pipe.hgetall(name)
        for what in ("state", "fail_counter", "opened_at"):
            pipe.get(f"{name}:pybreaker:{what}")
        for kind in ("flying", "window"):
            pipe.zrangebyscore(f"{name}:{kind}", f"({now:.0f}", "+inf")
        pipe.zcard(f"{name}:line")
        known, state, failures, opened, flying, window, waiting = pipe.execute()
    out = [*flying, *window]
    retry_at = (float(opened or 0) + reset_s) * 1000 if state == "open" else 0.0
    kinds = [kind for kind in ("requests", "tokens") if float(known.get(f"{kind}_reset") or 0) > now]
    return Account(
        circuit=state or "closed",
        failures=int(failures or 0),
        retry_s=max(0.0, (retry_at - now) / 1000),
        paused_s=max(0.0, (float(known.get("pause") or 0) - now) / 1000),
        requests=len(out),
        tokens=sum(int(permit.partition("|")[0]) for permit in out),
        waiting=waiting,
        told={kind: max(int(known[f"{kind}_left"]), 0) for kind in kinds},
        counts={what: int(known[what]) for what in ("granted", "parked", "throttled") if what in known},
    )
