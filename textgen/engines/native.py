"""Threads of the operating system, and what they hand over: also to greenlets.

Where gevent has patched the process, `threading` makes greenlets and its locks must not be touched
by native threads. A library that blocks in its own code needs a real thread all the same.
"""

from __future__ import annotations

import _thread
import sys
import time
from _queue import Empty, SimpleQueue  # gevent replaces the one in `queue`
from collections.abc import Callable
from typing import Any, Generic, TypeVar

#: Seconds between two looks into a mailbox under gevent, whose greenlets no native thread can wake.
GEVENT_LOOK_S = 0.003

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Hands things over from any thread to any thread or greenlet, in order."""

    def __init__(self) -> None:
        self._items: SimpleQueue[T] = SimpleQueue()

    def put(self, item: T) -> None:
        self._items.put(item)

    def take(self, timeout_s: float) -> T | None:
        """Take the oldest item; None if there is none for `timeout_s` seconds."""
        try:
            if _gevent_monkey() is None:
                return self._items.get(timeout=timeout_s)
            give_up = time.monotonic() + timeout_s
            while self._items.empty() and time.monotonic() < give_up:
                time.sleep(GEVENT_LOOK_S)
            return self._items.get_nowait()
        except Empty:
            return None


def start_thread(run: Callable[[], None]) -> None:
    """Run `run` in a thread of the operating system, which does not keep the process alive.

    Raises:
        RuntimeError: The system gives no more threads.
    """
    monkey = _gevent_monkey()
    start = monkey.get_original("_thread", "start_new_thread") if monkey else _thread.start_new_thread
    start(run, ())


def _gevent_monkey() -> Any:
    """The module `gevent.monkey` where it has patched this process; else None."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("time") else None
