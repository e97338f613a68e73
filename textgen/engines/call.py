"""The bridge to a runtime that takes a request by a call that blocks and calls back with each piece.

The local engine reads a request's pieces from here; the call runs in a native thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from textgen.engines.native import Mailbox, start_thread
from textgen.errors import EngineUnusable, TransientEngineError

#: Seconds without any sign of life from the runtime after which an attempt is given up.
SILENCE_S = 120.0
#: Seconds of waiting after which an empty piece gives the caller the chance to stop.
PULSE_S = 0.5


@dataclass(frozen=True, slots=True)
class _End:
    """The runtime's call has returned, or broken with `failure`."""

    failure: Exception | None = None


class Call:
    """One request to the runtime: a native thread on one side, an iterator on the other."""

    def __init__(
        self, server: Any, body: dict[str, Any], slots: Mailbox[bool], closed: Callable[[], bool]
    ) -> None:
        self._server = server
        self._body = body
        self._slots = slots
        #: Bounded by the context: however slow the consumer, no more than that can wait here.
        self._pieces: Mailbox[dict[str, Any] | _End] = Mailbox()
        self._closed = closed
        self._cancelled = False
        try:
            start_thread(self._run)
        except RuntimeError as exc:
            slots.put(True)
            raise TransientEngineError("the system gives no thread for the local model") from exc

    def cancel(self) -> None:
        """Have the runtime stop at its next sign of life; the slot is free again then."""
        self._cancelled = True

    def _run(self) -> None:
        end = _End()
        try:
            self._server.handle_chat_completions(self._body, self._take)
        except Exception as exc:  # noqa: BLE001 - carried to the consumer, which raises it
            end = _End(exc)
        self._slots.put(True)
        self._pieces.put(end)

    def _take(self, piece: dict[str, Any]) -> bool:
        """Called by the runtime. It swallows exceptions, so all reading is left to the consumer."""
        self._pieces.put(piece)
        return self._cancelled or self._closed()

    def pieces(self) -> Iterator[dict[str, Any]]:
        """What the runtime says, as it comes; an empty piece where it has said nothing for a while."""
        heard = time.monotonic()
        while True:
            piece = self._pieces.take(PULSE_S)
            if isinstance(piece, _End):
                break
            if piece is not None:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_S:
                raise TransientEngineError(f"the local model has said nothing for {SILENCE_S:.0f} s")
            yield piece or {}
        if piece.failure is not None:
            raise _broken(piece.failure) from piece.failure


def _broken(failure: Exception) -> Exception:
    """The error for a call that broke. The runtime's own words may quote the prompt: they stay out."""
    if isinstance(failure, ValueError):
        return EngineUnusable(  # another engine may take it
            "the local model refuses the request: its chat template takes no such order of turns, "
            "a parameter is out of its range, or a schema none that it can follow"
        )
    if isinstance(failure, RuntimeError):
        return TransientEngineError("the local model's runtime failed")
    return failure
