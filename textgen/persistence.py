"""Writes that must stand before a message may be acknowledged: repeated while the store is away."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from textgen.errors import StoreBroken, StoreUnavailable

T = TypeVar("T")

#: Seconds that such a write is repeated; then the message goes back.
PATIENCE_S = 60.0
#: Seconds between two tries of it, before jitter.
PAUSE_S = 0.5


class HandBack(Exception):
    """The store stayed away: the message must stay with the broker."""


def persist(call: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """Repeat `call` while the store is away, with jitter.

    Raises:
        HandBack: It stayed away for `patience_s` seconds.
        StoreBroken: It is there, and never will do this.
    """
    give_up = time.monotonic() + patience_s
    while True:
        try:
            return call()
        except StoreBroken:
            raise
        except StoreUnavailable as exc:
            if time.monotonic() > give_up:
                raise HandBack(str(exc)) from exc
            time.sleep(PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
