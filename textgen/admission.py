"""Lets submits in, or says which limit is in the way; every way in comes past here.

What a task may use at the most is reserved with it, so that no budget is overdrawn by tasks that have
not ended; what it has really used is settled at its end.
"""

from __future__ import annotations

from contextvars import ContextVar

from textgen import routes
from textgen.caller import Caller, Limits
from textgen.errors import BudgetExhausted, InvalidRequest, LimitExceeded, QueueFull
from textgen.lifecycle import Record
from textgen.settings import Settings
from textgen.store import Store, meter
from textgen.store.meter import Admission, Rate, Reservation

#: Seconds after which another try is worth while where only the end of other tasks makes room.
ROOM_S = 5.0

#: What the last submit in this context left of the rates of its key, for the headers of its answer.
rates: ContextVar[tuple[Rate, ...]] = ContextVar("rates", default=())


def admit(
    store: Store,
    settings: Settings,
    record: Record,
    caller: Caller,
    *,
    is_delayed: bool = False,
    is_free: bool = False,
) -> Admission:
    """Let a task in, and reserve what it may use.

    Args:
        store: The store.
        settings: The settings.
        record: The task, not submitted yet.
        caller: On whose behalf.
        is_delayed: Whether it is not due yet, and so in no lane.
        is_free: Whether no limit applies; it is counted all the same.

    Raises:
        LimitExceeded: A rate or a number of tasks; try again later.
        QueueFull: As many tasks wait as may.
        BudgetExhausted: The budget of the day or month does not last for it.
        InvalidRequest: No waiting helps: it asks for more than a minute's tokens.
        StoreUnavailable: Redis did not answer.
    """
    each = Limits() if is_free else caller.limits.over(Limits.of_each(settings))
    everybody = Limits() if is_free else Limits.of_all(settings)
    share = 0 if is_delayed else settings.owner_share
    reserved = _reservation(store, settings, record)
    admission = meter.admit(store, record, caller, reserved, each, everybody, share)
    rates.set(admission.rates)
    if admission.word == "refused":
        raise _refusal(admission)
    return admission


def _reservation(store: Store, settings: Settings, record: Record) -> Reservation:
    """The most that one attempt at a task may use."""
    prompt, completion = routes.most_tokens(record, settings)
    # which engine it will be is not known yet, where it has a route: the dearest
    plan = routes.plan(record, settings)
    found = [store.prices.of(entry.engine, routes.model_of(entry, settings)) for entry in plan]
    dearest = max((price.nano(prompt, completion) for price in found if price), default=0)
    return Reservation(prompt + completion, dearest)


#: The limit that refused → what is said of it.
_WORDS = {
    "requests_per_minute": "requests per minute",
    "tokens_per_minute": "tokens per minute",
    "tokens_per_day": "tokens per day",
    "tokens_per_month": "tokens per month",
    "usd_per_day": "dollars per day",
    "usd_per_month": "dollars per month",
}


def _refusal(admission: Admission) -> LimitExceeded | InvalidRequest:
    whose = "your" if admission.scope == "key" else "the server's"
    limit, wait_s = admission.limit, admission.retry_after_s or ROOM_S
    if limit == "never":
        reason = f"prompt and max_tokens are more than {whose} limit of tokens per minute"
        return InvalidRequest.of({"field": "max_tokens", "reason": reason})
    if limit == "tasks" and admission.scope == "all":
        return QueueFull.of("as many tasks wait and run as may", limit, wait_s)
    if limit == "tasks":
        return LimitExceeded.of("as many of your tasks wait and run as may", limit, wait_s)
    if limit == "held":
        return LimitExceeded.of(f"tasks that go on may use up {whose} budget", "budget", wait_s)
    if limit.endswith("_per_minute"):
        return LimitExceeded.of(f"{whose} limit of {_WORDS[limit]} is reached", limit, wait_s)
    return BudgetExhausted.of(f"{whose} budget of {_WORDS[limit]} does not last for this", limit, wait_s)
