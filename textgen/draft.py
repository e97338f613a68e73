"""The text of an attempt, on its way into the task's event log.

What is in flow is written by one thread for all attempts of the process, in one round trip after the other:
an attempt that waited for the store at each chunk would cost more than what the chunk came from.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import structlog

from textgen.engines.base import Chunk
from textgen.errors import StoreBroken, StoreUnavailable
from textgen.heartbeat import Running
from textgen.lifecycle import Status
from textgen.logs import outline
from textgen.persistence import PAUSE_S, persist
from textgen.store import Store, fanout
from textgen.store.answers import Claimed, Terms, Verdict
from textgen.store.fanout import Piece

log = structlog.get_logger(__name__)

#: Characters held back while the store is away; then the attempt waits for it.
MAX_UNWRITTEN_CHARS = 1_000_000
#: Seconds in which text that is in flow is gathered before it is written.
GATHER_S = 0.03
#: Seconds between two chunks from which on text is not in flow: the attempt writes it itself, and knows at
#: that very chunk if it has to stop.
SLOW_S = 0.2


class Draft:
    """What an attempt has written so far.

    Args:
        running: The attempt; each write sets its verdict.
        terms: Those of the task, in case Redis has lost it.
        writer: Writes what is in flow.
        worker: The worker's name.
    """

    def __init__(self, running: Running, terms: Terms, writer: Writer, worker: str) -> None:
        self.running = running
        self.terms = terms
        self.store = writer.store
        self.worker = worker
        self._writer = writer
        self._pieces: list[str] = []
        self._unwritten: list[Chunk] = []
        self._chars = self._written_chars = 0
        self._writes = self._written_tokens = 0
        self._prompt_tokens: int | None = None
        #: How many of the unwritten were in a write that came to no answer: it is repeated as it was,
        #: so that the log can tell it from what is new.
        self._doubtful: int | None = None
        #: Whether the attempt is to write what comes next by itself: Redis has lost its task, or will not
        #: take what somebody wrote.
        self._is_apart = False
        #: Whether Redis has lost the log, so that it lacks what was written before, too.
        self._is_anew = False
        self._passed_on = float("-inf")
        #: Held during each write.
        self._lock = threading.Lock()

    @property
    def text(self) -> str:
        """All of the text so far."""
        return "".join(self._pieces)

    def add(self, chunk: Chunk) -> None:
        """Take a chunk in; `pass_on` or `flush` writes it."""
        if chunk.text:
            chunk.text.encode()  # what cannot be written fails here, where it holds up no other text
            self._pieces.append(chunk.text)
            self._unwritten.append(chunk)
            self._chars += len(chunk.text)

    def pass_on(self) -> None:
        """See to it that what is unwritten is written soon, or at once if it is not in flow.

        Raises:
            HandBack: The store stayed away, and there is too much to keep.
        """
        before, self._passed_on = self._passed_on, time.monotonic()
        if self._passed_on - before > SLOW_S or self._is_apart or self._is_full:
            self.flush()
        elif self._unwritten:
            self._writer.add(self)

    @property
    def has_more(self) -> bool:
        """Whether there is something that the writer may write."""
        return bool(self._unwritten) and not self._is_apart and self.running.verdict is Verdict.OK

    @property
    def _is_full(self) -> bool:
        return self._chars - self._written_chars > MAX_UNWRITTEN_CHARS

    def flush(self, is_last: bool = False) -> None:
        """Write what is unwritten. While the store is away it is left for the next time.

        Raises:
            HandBack: It stayed away, and this was the last time or there is too much to keep.
            StoreBroken: It will never take this.
        """
        with self._lock:
            while self._unwritten or self._is_anew:
                batch = self._batch()
                try:
                    verdict = self._write(batch)
                except StoreBroken:
                    raise
                except StoreUnavailable:
                    self._doubtful = len(batch)
                    if not is_last and not self._is_full:
                        return
                    verdict = persist(lambda: self._write(batch))  # noqa: B023 - called before the next round
                self._note(batch, verdict)

    def begin(self) -> list[Chunk]:
        """For the writer: what it may write now, if anything; `end` must follow then."""
        if not self._lock.acquire(blocking=False):
            return []
        batch = [] if self._is_apart else self._batch()
        if not batch:
            self._lock.release()
        return batch

    def end(self, batch: list[Chunk], verdict: Verdict | None, is_broken: bool = False) -> None:
        """For the writer: what has become of a batch; None if nobody knows, or not all could be."""
        if verdict is None:
            self._doubtful, self._is_apart = len(batch), is_broken
        elif verdict in (Verdict.ABSENT, Verdict.BEHIND):
            self._is_apart = True
        else:
            self._note(batch, verdict)
        self._lock.release()

    def piece(self, batch: list[Chunk]) -> Piece:
        """A batch as the log takes it, behind all that it lacks."""
        text, tokens = "".join(chunk.text for chunk in batch), sum(chunk.tokens for chunk in batch)
        known = next((c.prompt_tokens for c in batch if c.prompt_tokens is not None), None)
        if self._is_anew:
            text, tokens = self.text[: self._written_chars] + text, self._written_tokens + tokens
            known = self._prompt_tokens if known is None else known
        return Piece(self.running.record.task_id, self.running.token, self._writes, text, tokens, known)

    def _batch(self) -> list[Chunk]:
        return self._unwritten[: self._doubtful]

    def _note(self, batch: list[Chunk], verdict: Verdict) -> None:
        self.running.verdict = verdict
        if verdict is Verdict.OK:
            self.running.renewed = time.monotonic()
        self._writes += 1
        self._doubtful = None
        self._is_apart = self._is_anew = False
        self._written_chars += sum(len(chunk.text) for chunk in batch)
        self._written_tokens += sum(chunk.tokens for chunk in batch)
        self._prompt_tokens = next(
            (c.prompt_tokens for c in batch if c.prompt_tokens is not None), self._prompt_tokens
        )
        del self._unwritten[: len(batch)]

    def _write(self, batch: list[Chunk]) -> Verdict:
        [verdict] = fanout.append_each(self.store, [self.piece(batch)])
        if verdict is Verdict.BEHIND:
            self._is_anew, self._writes = True, 0
        if verdict is Verdict.BEHIND or (verdict is Verdict.ABSENT and self._restore()):
            [verdict] = fanout.append_each(self.store, [self.piece(batch)])
        return verdict

    def restore(self) -> bool:
        """Bring back a task that Redis has lost while it ran, and its text; False if somebody else has it.

        Raises:
            StoreUnavailable: Redis did not answer; it may be repeated.
        """
        with self._lock:
            if not self._restore():
                return False
            self.running.verdict = Verdict.OK
            batch = self._batch()
            self._doubtful = len(batch)
            self._note(batch, self._write(batch))
        return True

    def _restore(self) -> bool:
        self._is_anew, self._writes = True, 0
        record = self.running.record
        lost = record.but(status=Status.PENDING, attempt=record.attempt - 1)
        claim = self.store.claim(lost, self.terms, self.running.token, self.worker)
        if claim.outcome is not Claimed.TAKEN or claim.record is None:
            return False
        self.running.record = claim.record.but(engine=record.engine)
        return True


class Writer:
    """Writes what the drafts of this process have in flow.

    Args:
        store: Where the logs are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._due: set[Draft] = set()
        self._lock = threading.Lock()
        self._is_due = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, draft: Draft) -> None:
        """Have a draft written soon."""
        with self._lock:
            self._due.add(draft)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
                self._thread.start()
        self._is_due.set()

    def _run(self) -> None:
        while True:
            self._is_due.wait()
            time.sleep(GATHER_S)  # streams of one model, or of one provider, move at the same moments
            self._is_due.clear()
            with self._lock:
                due, self._due = self._due, set()
            is_well = self.write(due)
            for draft in due:
                if draft.has_more:
                    self.add(draft)
            if not is_well:
                time.sleep(PAUSE_S)

    def write(self, drafts: Iterable[Draft], is_alone: bool = False) -> bool:
        """Write what drafts hold, in one round trip; False where the store is away and they keep it.

        Where one holds what cannot be written, each is written alone; that one is left to its attempt.
        """
        begun = [(draft, batch) for draft in drafts if (batch := draft.begin())]
        verdicts: list[Verdict | None] = [None] * len(begun)
        is_broken = False
        try:
            verdicts[:] = fanout.append_each(self.store, [draft.piece(batch) for draft, batch in begun])
        except StoreBroken:
            is_broken = True
        except StoreUnavailable:
            return False
        except Exception as exc:  # noqa: BLE001 - what is wrong with one text must not end the writing of all
            log.error("writer stumbled", where=outline(exc))
            is_broken = True
        finally:
            for (draft, batch), verdict in zip(begun, verdicts, strict=True):
                draft.end(batch, verdict, is_broken and is_alone)
        if is_broken and not is_alone:
            return all(self.write([draft], is_alone=True) for draft, _ in begun)
        return True
