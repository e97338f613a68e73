"""Requests that are held open, streams and waits: no owner may hold all that a process can serve."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from textgen.errors import LimitExceeded
from textgen.settings import get_settings

#: What the limit is called in a problem.
OPEN = "open"
#: Seconds after which another try is worth while.
RETRY_AFTER_S = 5.0

_lock = threading.Lock()
#: Owner → how many of its requests this process holds open.
_held: Counter[str] = Counter()


def take(owner: str) -> Callable[[], None]:
    """Hold one more request of an owner open.

    Returns:
        What gives the place back, to be called once.

    Raises:
        LimitExceeded: As many of the owner's are open as may be, where keys are needed.
    """
    settings = get_settings()
    limit = settings.limit_open if settings.requires_keys else 0
    with _lock:
        if limit and _held[owner] >= limit:
            message = "as many of your streams and waits are open as may"
            raise LimitExceeded.of(message, OPEN, RETRY_AFTER_S)
        _held[owner] += 1
    return lambda: _give_back(owner)


def _give_back(owner: str) -> None:
    with _lock:
        _held[owner] -= 1
        if not _held[owner]:
            del _held[owner]
