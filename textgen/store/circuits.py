"""Circuit breakers of providers, shared by all workers: pybreaker's state machine on its Redis storage.

A call's outcome is reported after it: pybreaker's own `call` would hold a lock for as long as a text is
written. Whether a call may be made is asked of the gate's script, which reads the same keys, lets one
task at a time try a provider that was down, and makes its circuit half-open for that.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache

import pybreaker
import redis

from textgen.settings import Settings, get_settings
from textgen.store import keys
from textgen.store.connection import connect, translated

#: Milliseconds for which a circuit's state outlives its last change: as in `lua/providers.lua`.
KEPT_MS = 86_400_000


class _Outcome(Exception):
    """Stands for the failure of a call that is over."""


class _Storage(pybreaker.CircuitRedisStorage):
    """pybreaker's storage, but that Redis' clock says when a circuit opened, to the microsecond."""

    @property
    def opened_at(self) -> datetime | None:
        found = self._redis.get(self._namespace("opened_at"))
        return datetime.fromtimestamp(float(found), UTC) if found else None

    @opened_at.setter
    def opened_at(self, now: datetime) -> None:
        seconds, micros = self._redis.time()
        self._redis.set(self._namespace("opened_at"), f"{seconds}.{micros:06d}")


@lru_cache(maxsize=4)
def _client(pid: int) -> redis.Redis:
    """A client of this process that does not decode: pybreaker does so itself."""
    return connect(get_settings(), decodes=False)


def report(account: str, settings: Settings, *, is_failure: bool, is_try: bool = False) -> str:
    """Take note of how a call of a provider ended.

    Args:
        account: By what the provider counts.
        settings: How many failures in a row open the circuit.
        is_failure: Whether the provider failed, rather than answered.
        is_try: Whether the call was to show that it is back.

    Returns:
        The circuit's state after that.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    client, namespace = _client(os.getpid()), keys.PROVIDERS + account
    with translated():
        storage = _Storage(pybreaker.STATE_CLOSED, client, namespace)
        breaker = pybreaker.CircuitBreaker(
            settings.breaker_failures,
            settings.breaker_reset_s,
            state_storage=storage,
            throw_new_error_on_trip=False,
        )
        # what began before the circuit opened says nothing new of it, nor of the try that goes on
        if is_try or breaker.current_state == pybreaker.STATE_CLOSED:
            with suppress(_Outcome, pybreaker.CircuitBreakerError):
                breaker.call(_fail if is_failure else _succeed)
        pipe = client.pipeline(transaction=False)
        for what in ("state", "fail_counter", "success_counter", "opened_at"):
            pipe.pexpire(f"{namespace}:pybreaker:{what}", KEPT_MS)
        pipe.execute()
        return str(breaker.current_state)


def _fail() -> None:
    raise _Outcome


def _succeed() -> None:
    pass
