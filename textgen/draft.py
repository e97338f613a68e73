"""The text of an attempt, on its way into the task's event log."""

from __future__ import annotations

import time

from textgen.engines.base import Chunk
from textgen.errors import StoreUnavailable
from textgen.heartbeat import Running
from textgen.lifecycle import Status
from textgen.persistence import persist
from textgen.store import Store
from textgen.store.answers import Claimed, Terms, Verdict

#: Characters held back while the store is away; then the attempt waits for it.
MAX_UNWRITTEN_CHARS = 1_000_000


class Draft:
    """What an attempt has written so far.

    Args:
        running: The attempt; each write sets its verdict.
        terms: Those of the task, in case Redis has lost it.
        store: Where the log is.
        worker: The worker's name.
    """

    def __init__(self, running: Running, terms: Terms, store: Store, worker: str) -> None:
        self.running = running
        self.terms = terms
        self.store = store
        self.worker = worker
        self._pieces: list[str] = []
        self._unwritten: list[Chunk] = []
        self._writes = 0
        #: How many of the unwritten were in a write that came to no answer: it is repeated as it was,
        #: so that the log can tell it from what is new.
        self._doubtful = 0

    @property
    def text(self) -> str:
        """All of the text so far."""
        return "".join(self._pieces)

    def add(self, chunk: Chunk) -> None:
        """Take a chunk in; `flush` writes it."""
        if chunk.text:
            self._pieces.append(chunk.text)
            self._unwritten.append(chunk)

    def flush(self, is_last: bool = False) -> None:
        """Write what is unwritten. While the store is away it is left for the next time.

        Raises:
            HandBack: It stayed away, and this was the last time or there is too much to keep.
        """
        while self._unwritten:
            batch = self._unwritten[: self._doubtful or None]
            try:
                verdict = self._write(batch)
            except StoreUnavailable:
                self._doubtful = len(batch)
                if not is_last and sum(len(chunk.text) for chunk in self._unwritten) <= MAX_UNWRITTEN_CHARS:
                    return
                verdict = persist(lambda: self._write(batch))  # noqa: B023 - called before the next round
            self.running.verdict = verdict
            if verdict is Verdict.OK:
                self.running.renewed = time.monotonic()
            self._writes += 1
            self._doubtful = 0
            del self._unwritten[: len(batch)]

    def _write(self, batch: list[Chunk]) -> Verdict:
        task_id, token = self.running.record.task_id, self.running.token
        text, tokens = "".join(chunk.text for chunk in batch), sum(chunk.tokens for chunk in batch)
        known = next((c.prompt_tokens for c in batch if c.prompt_tokens is not None), None)
        verdict = self.store.append(task_id, token, self._writes, text, tokens, known)
        if verdict is Verdict.ABSENT and self.restore():
            self._writes = 0
            rest = sum(len(chunk.text) for chunk in self._unwritten[len(batch) :])
            whole = self.text
            return self.store.append(task_id, token, 0, whole[: len(whole) - rest], tokens, known)
        return verdict

    def restore(self) -> bool:
        """Claim a task again that Redis has lost while it ran; False if somebody else has."""
        record = self.running.record
        lost = record.but(status=Status.PENDING, attempt=record.attempt - 1)
        claim = self.store.claim(lost, self.terms, self.running.token, self.worker)
        if claim.outcome is not Claimed.TAKEN or claim.record is None:
            return False
        self.running.record = claim.record.but(engine=record.engine)
        return True
