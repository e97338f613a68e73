"""Tasks that ask for what an attempt generates already: it claims them, and they get its text as it comes.

So all of them stream it, and none holds a worker's slot. Where the attempt does not complete, they are
handed back, and the next of them leads. A follower that is cancelled or times out drops out alone.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from textgen.draft import Draft
from textgen.errors import StoreUnavailable
from textgen.heartbeat import Heartbeat, Running
from textgen.lifecycle import Record, Status
from textgen.outcomes import ATTEMPT_TIMEOUT, DEADLINE
from textgen.settings import Settings
from textgen.store import cache, fanout
from textgen.store.answers import Claimed, Moved, Verdict
from textgen.store.cache import Place, Stored
from textgen.store.fanout import Piece

log = structlog.get_logger(__name__)

#: Seconds between two looks for followers, in which their text is gathered too.
TELL_S = 0.1
#: Followers that are claimed in one look, and that one attempt writes for: more are answered from the
#: cache when they come back.
LOOK, MOST = 50, 250
#: Those that are claimed at one beat, where the leases of other attempts wait for it.
LOOK_AT_BEAT = 5
#: Seconds in which followers that have ended are settled at once; the janitor settles the rest.
SETTLE_S = 5.0
#: How texts end that may answer later requests.
WHOLE = ("stop", "length")
#: Why the text of a follower is void that was handed back.
LEADER_GONE = "leader_gone"


@dataclass(eq=False)
class Follower:
    """A task that an attempt writes for."""

    running: Running
    #: Characters that its log has, and that it will have once what is being written is there.
    written: int = 0
    writing: int = 0
    writes: int = 0

    def piece(self, text: str) -> Piece:
        """What its log lacks. A piece whose fate is not known is written again as it was."""
        if self.writing == self.written:
            self.writing = len(text)
        rest = text[self.written : self.writing]
        return Piece(self.running.record.task_id, self.running.token, self.writes, rest)

    def pulse(self) -> Piece:
        """No text: what renews its lease."""
        return Piece(self.running.record.task_id, self.running.token, self.writes, "")

    def note_written(self) -> None:
        """Note that its last piece stands in its log."""
        self.writes += self.writing > self.written
        self.written = self.writing

    def note_lost(self) -> None:
        """Note that nothing stands in its log."""
        self.writes = self.written = self.writing = 0


class Followers:
    """Those who follow one attempt.

    The attempt's thread and the heartbeat's both call; what one is about, the other leaves alone.

    Args:
        place: Of the result; None: nobody may follow.
        draft: What the attempt writes.
        heartbeat: Ends a follower that takes too long.
        settings: The settings.
        settle: Called with the id of a follower that has ended, while others are kept.
    """

    def __init__(
        self,
        place: Place | None,
        draft: Draft,
        heartbeat: Heartbeat,
        settings: Settings,
        settle: Callable[[str], None],
    ) -> None:
        self.place = place
        self.draft = draft
        self.heartbeat = heartbeat
        self.settings = settings
        self.settle = settle
        self.store = draft.store
        self._followers: dict[str, Follower] = {}
        #: Ids of those that have ended, and are to be settled.
        self._ended: deque[str] = deque()
        self._lock = threading.Lock()
        self._next_look = 0.0

    @property
    def _leader(self) -> str:
        return self.draft.running.record.task_id

    def tell(self) -> None:
        """Take in who came, and write what the attempt has written; now and then."""
        if self.place is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + TELL_S
        with self._lock:
            self._guarded(self._look)
        self._settle()

    def beat(self) -> None:
        """The same while the attempt's engine says nothing; hand back when it has to stop."""
        running = self.draft.running
        if self.place is None or running.is_over or not self._lock.acquire(blocking=False):
            return
        try:
            if running.ended or running.verdict in (Verdict.CANCELLED, Verdict.FENCED, Verdict.OVERDUE):
                self._guarded(self._hand_back)
            else:
                self._guarded(lambda: self._look(is_beat=True))
        finally:
            self._lock.release()

    def complete(self, record: Record) -> None:
        """Keep the result of the attempt, which stands, and complete all followers by it."""
        self.draft.running.is_over = True
        stored = Stored.of(record)
        with self._lock:
            if stored.finish_reason in WHOLE:
                self._guarded(lambda: self._keep(stored))
            self._guarded(lambda: self._finish(stored))
            self._guarded(self._hand_back)
        self._settle()

    def close(self) -> None:
        """Give the lead up, and hand back who is left."""
        self.draft.running.is_over = True
        with self._lock:
            self._guarded(self._hand_back)

    def _settle(self) -> None:
        """Settle who has ended; without the lock, as it may publish, and wait for a broker that is away."""
        until = time.monotonic() + SETTLE_S
        while self._ended:
            task_id = self._ended.popleft()
            if time.monotonic() < until:
                self.settle(task_id)

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do without what Redis does not answer: leases lapse, and messages come back by themselves."""
        if self.place is None:
            return
        try:
            act()
        except StoreUnavailable as exc:
            log.warning("followers left alone", task_id=self._leader, reason=str(exc))

    # Each with the lock held, while `place` is there

    def _look(self, is_beat: bool = False) -> None:
        self._adopt(LOOK_AT_BEAT if is_beat else LOOK)
        self._write(self.draft.text, is_beat)

    def _adopt(self, at_most: int = LOOK) -> None:
        assert self.place is not None
        room = min(at_most, MOST - len(self._followers))
        lease_ms = int(self.store.lease_s * 1000)
        _, ids = cache.attend(self.store, self.place, self._leader, lease_ms, room)
        for task_id in ids:
            if task_id not in self._followers:
                self._claim(task_id)

    def _claim(self, task_id: str) -> None:
        record, control = self.store.get(task_id), self.store.control(task_id)
        if record is None or control is None or record.status is not Status.PENDING:
            return
        token = uuid.uuid4().hex
        claim = self.store.claim(record, control.terms, token, self.draft.worker)
        if claim.outcome is Claimed.TAKEN and claim.record is not None:
            limit_s = control.terms.limit_s(self.settings.attempt_timeout_s)
            self._followers[task_id] = Follower(Running(claim.record, token, limit_s))

    def _write(self, text: str, is_for_all: bool = False) -> None:
        """Write what each lacks, and renew the leases of those that lack nothing too if it is for all."""
        due = [one for one in self._followers.values() if is_for_all or one.written < len(text)]
        pieces = [follower.piece(text) for follower in due]
        for follower, verdict in zip(due, fanout.append_each(self.store, pieces), strict=True):
            error = DEADLINE if verdict is Verdict.OVERDUE else None
            if verdict is Verdict.BEHIND:
                follower.note_lost()
                continue
            if verdict is Verdict.OK:
                follower.note_written()
                error = ATTEMPT_TIMEOUT if follower.running.overrun_s > 0 else None
            if error:
                self.heartbeat.end(follower.running, error)
            if error or verdict is not Verdict.OK:
                self._drop(follower)

    def _drop(self, follower: Follower) -> None:
        task_id = follower.running.record.task_id
        del self._followers[task_id]
        self._ended.append(task_id)

    def _in_turn(self) -> Iterator[Follower]:
        """Each follower, to be ended; the leases of those whose turn has not come are kept."""
        waiting = list(self._followers.values())
        while waiting:
            yield from waiting[:LOOK]
            waiting = waiting[LOOK:]
            fanout.append_each(self.store, [follower.pulse() for follower in waiting])

    def _keep(self, stored: Stored) -> None:
        assert self.place is not None
        settings = self.settings
        limits = (settings.cache_ttl_s, settings.cache_max_entries, settings.cache_max_bytes)
        cache.put(self.store, self.place, stored, *limits)

    def _finish(self, stored: Stored) -> None:
        self._adopt()
        self._write(stored.text, is_for_all=True)
        for follower in self._in_turn():
            if follower.written == len(stored.text):
                self.store.move(stored.on(follower.running.record), token=follower.running.token)
                self._drop(follower)

    def _hand_back(self) -> None:
        """Give up, for good, what is left: it is published again at once, and counts as no failure."""
        assert self.place is not None
        place, self.place = self.place, None
        cache.leave(self.store, place, self._leader)
        for follower in self._in_turn():
            waiting = follower.running.record.but(status=Status.PENDING)
            moved = self.store.move(waiting, token=follower.running.token, reason=LEADER_GONE)
            if moved.outcome is Moved.OK:
                self.store.schedule(waiting.task_id, 0.0)
