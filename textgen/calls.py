"""One call of an engine: its pieces pass through here, and a witness is told what they mean for others."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

from textgen.engines.base import Chunk, Finish
from textgen.errors import EngineError, TransientEngineError
from textgen.routes import Entry
from textgen.store.permits import Granted


class Witness(Protocol):
    """Who is told of calls that were made with a permit."""

    def began(self, permit: Granted, piece: Chunk | Finish) -> None:
        """The provider's answer began."""

    def ended(self, permit: Granted, is_failure: bool, has_begun: bool, pause_s: float | None) -> None:
        """The call is over; the provider may have asked for a pause."""

    def left_off(self, permit: Granted) -> None:
        """The call was left off before anything came of it."""

    def give_back(self, permit: Granted) -> None:
        """No call was made."""


class Call:
    """One engine that may be called, and what is to be told of the call.

    Args:
        entry: The engine.
        passed_over: Those before it in the route, and why.
        witness: Who is told.
        permit: None where nobody needs to know.
    """

    def __init__(
        self,
        entry: Entry,
        passed_over: tuple[tuple[Entry, str], ...] = (),
        witness: Witness | None = None,
        permit: Granted | None = None,
    ) -> None:
        self.entry = entry
        self.passed_over = passed_over
        self._witness = witness
        self._permit = permit
        self._has_begun = self._is_over = False

    @property
    def is_permitted(self) -> bool:
        """Whether all workers know of the call, and heed what is told of it."""
        return self._permit is not None

    def fits(self, entries: Sequence[Entry]) -> bool:
        """Whether `entries` lead to the same call."""
        asked = [*(entry for entry, _ in self.passed_over), self.entry]
        return asked == list(entries[: len(asked)])

    def watch(self, pieces: Iterable[Chunk | Finish]) -> Generator[Chunk | Finish, None, None]:
        """Pass on what the engine yields or raises, and tell what it means for others."""
        try:
            for piece in pieces:
                self._began(piece)
                yield piece
        except TransientEngineError as exc:
            self.failed(exc)
            raise
        except EngineError:
            self._ended(is_failure=False)
            raise
        finally:
            self._left()

    def give_back(self) -> None:
        """Say that nothing was asked of the provider."""
        if self._witness and self._permit and not self._has_begun and not self._is_over:
            self._is_over = True
            self._witness.give_back(self._permit)

    def failed(self, exc: TransientEngineError) -> None:
        """Say that the call failed; a provider that is at its limit has answered all the same."""
        pause_s = exc.retry_after_s or 0.0 if exc.is_throttled else exc.retry_after_s
        self._ended(is_failure=not exc.is_throttled, pause_s=pause_s)

    def hung(self) -> None:
        """Say that the call was given up because nothing came of it."""
        self._ended(is_failure=True)

    def _began(self, piece: Chunk | Finish) -> None:
        if not self._has_begun and not self._is_over:
            self._has_begun = True
            if self._witness and self._permit:
                self._witness.began(self._permit, piece)
        if isinstance(piece, Finish):
            self._ended(is_failure=False)

    def _ended(self, is_failure: bool, pause_s: float | None = None) -> None:
        if self._witness and self._permit and not self._is_over:
            self._is_over = True
            self._witness.ended(self._permit, is_failure, self._has_begun, pause_s)

    def _left(self) -> None:
        """Say that the call was left off; that it was made counts."""
        if self._witness and self._permit and not self._is_over and not self._has_begun:
            self._is_over = True
            self._witness.left_off(self._permit)
