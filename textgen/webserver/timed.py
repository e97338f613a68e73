"""A request's body with a bound on how long it may take to come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent

#: Seconds in which the whole body of a request must come.
BODY_S = 10.0


class TimedBody:
    """`wsgi.input`, readable for `BODY_S` seconds from the first look at it.

    Every way to read raises TimeoutError past that.
    """

    def __init__(self, body: Any) -> None:
        self._body = body
        self._deadline: float | None = None

    def read(self, size: int | None = None) -> bytes:
        return bytes(self._timed(self._body.read, size))

    def readline(self, size: int | None = None) -> bytes:
        return bytes(self._timed(self._body.readline, size))

    def readlines(self, size: int | None = None) -> list[bytes]:
        return list(self._timed(self._body.readlines, size))

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def _timed(self, read: Callable[..., Any], size: int | None) -> Any:
        now = time.monotonic()
        self._deadline = self._deadline or now + BODY_S
        late = TimeoutError(f"the body did not come within {BODY_S:g} s")
        with gevent.Timeout(max(0.0, self._deadline - now), late):
            return read(size)
