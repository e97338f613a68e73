"""The lifecycle of one task in plain Python, step by step as the store's scripts are to keep to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from textgen.lifecycle import TRANSITIONS, Status
from textgen.store.answers import Claimed, Moved, Verdict


@dataclass
class ModelTask:
    """What is known of one id; `status` None: nothing is."""

    status: Status | None = None
    fingerprint: str = ""
    attempt: int = 0
    failures: int = 0
    token: str | None = None
    #: Whether there is a record to read. A refused submit leaves none.
    is_visible: bool = False
    lapsed: bool = False
    overdue: bool = False
    #: Whether it waits until a time that has not come.
    waits: bool = False
    cancel: bool = False
    writes: int = 0
    tokens: int = 0
    result: str | None = None
    #: (type, attempt, what) of each entry of the log.
    log: list[tuple[str, int, str]] = field(default_factory=list)
    text: dict[int, str] = field(default_factory=dict)

    @property
    def is_terminal(self) -> bool:
        return self.status is not None and self.status.is_terminal

    def _become(self, status: Status) -> None:
        assert self.status is None or status in TRANSITIONS[self.status]
        self.status = status
        self.log.append(("state", self.attempt, status.value))

    def submit(self, fingerprint: str, waits: bool) -> str:
        if self.status is not None:
            return "exists" if self.fingerprint == fingerprint else "clash"
        self.fingerprint, self.waits, self.is_visible = fingerprint, waits, True
        self._become(Status.PENDING)
        return "created"

    def claim(self, token: str, attempt: int, failures: int) -> Claimed:
        if self.status is None:
            self.is_visible, self.attempt, self.failures = True, attempt, failures
            self.log.append(("reset", attempt, "log_lost"))
            self._become(Status.PENDING)
        if self.is_terminal:
            return Claimed.ENDED
        if self.status is Status.PROCESSING and self.token == token:
            return Claimed.TAKEN
        if self.overdue:
            return Claimed.EXPIRED
        if self.cancel:
            return Claimed.CANCELLED
        if self.status is Status.PROCESSING:
            return Claimed.LAPSED if self.lapsed else Claimed.BUSY
        if self.waits:
            return Claimed.BUSY
        if (self.attempt, self.failures) != (attempt, failures):
            return Claimed.MOVED
        self.attempt += 1
        self.token, self.lapsed, self.writes, self.tokens = token, False, 0, 0
        self.text[self.attempt] = ""
        self._become(Status.PROCESSING)
        return Claimed.TAKEN

    def append(self, token: str, writes: int, text: str) -> Verdict:
        if self.status is None:
            return Verdict.ABSENT
        if self.status is Status.CANCELLED:
            return Verdict.CANCELLED
        if self.token != token:
            return Verdict.FENCED
        if self.cancel:
            return Verdict.CANCELLED
        if self.overdue:
            return Verdict.OVERDUE
        self.lapsed = False
        if text and self.writes == writes:
            self.writes += 1
            self.tokens += 1
            self.text[self.attempt] += text
            self.log.append(("chunk", self.attempt, text))
        return Verdict.OK

    def move(self, to: Status, guard: str, holds: bool, failures: int, waits: bool, result: str) -> Moved:
        """A transition; `holds` tells whether the token or the revision given is the present one."""
        if self.status is None:
            return Moved.ABSENT
        if self.is_terminal:
            return Moved.ENDED
        if not holds:
            return Moved.FENCED if guard == "token" else Moved.MOVED
        if guard == "token" and self.cancel and to is not Status.CANCELLED:
            return Moved.CANCELLED
        if guard == "lapsed" and not (self.status is Status.PROCESSING and self.lapsed):
            return Moved.ALIVE
        self.token, self.failures = None, failures
        if to is Status.PENDING:
            self.waits = waits
            if self.tokens:
                self.log.append(("reset", self.attempt, "why"))
        else:
            self.result = result
        self._become(to)
        return Moved.OK

    def ask_cancel(self) -> bool:
        if self.status is None or self.is_terminal:
            return False
        self.cancel = True
        return True

    def refuse(self) -> bool:
        if self.status not in (None, Status.PENDING):
            return False
        if self.status is Status.PENDING:
            self.status, self.fingerprint = Status.CANCELLED, ""
        self.is_visible = False
        self.log.clear()
        return True

    def bury(self) -> bool:
        if self.status is not None:
            return False
        self.is_visible = True
        self._become(Status.FAILED)
        return True
