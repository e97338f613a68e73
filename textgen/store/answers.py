"""What the store's calls answer: plain frozen data, one class for each kind of call."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from textgen.lifecycle import Record


def as_record(text: str) -> Record | None:
    """Rebuild the record in `text`; an empty text is no record."""
    return Record.from_dict(json.loads(text)) if text else None


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides how long a task may take and be read, and how its message is made again."""

    #: Milliseconds a finished record can be read.
    ttl_ms: int
    #: Milliseconds since 1970 in Redis' clock at which the task must have ended.
    deadline_ms: int
    #: Digest of the request, by which a repeated submit is told from a clash of ids.
    fingerprint: str = ""
    #: Milliseconds since 1970 at which the first attempt must have begun; 0: no such limit.
    queue_until_ms: int = 0
    #: Seconds one attempt may take; 0: as the worker's settings say.
    attempt_s: int = 0
    #: Options of the Celery message beyond the request (chain, links …), as JSON.
    envelope: str = "{}"
    #: {`url`, `events`} as JSON; empty: nobody is to be told.
    webhook: str = ""

    def limit_s(self, at_most_s: float) -> float:
        """Seconds that an attempt may take: what was asked for, never above the worker's own limit."""
        return min(self.attempt_s or at_most_s, at_most_s)


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to a submit."""

    record: Record
    #: The terms it was accepted under; None: this call did not make the task.
    terms: Terms | None
    #: Whether the id belongs to another request.
    is_clash: bool = False


class Claimed(StrEnum):
    """How a claim ended."""

    #: The attempt may begin.
    TAKEN = "taken"
    #: Another attempt's lease lives, or the task is not due yet.
    BUSY = "busy"
    #: The task is terminal.
    ENDED = "ended"
    #: The deadline has passed.
    EXPIRED = "expired"
    #: It waited for its first attempt longer than it may.
    STALE = "stale"
    #: Somebody asked for a cancel.
    CANCELLED = "cancelled"
    #: Another attempt's lease has lapsed and nobody took note yet.
    LAPSED = "lapsed"
    #: The task moved on while it was read; read again.
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim."""

    outcome: Claimed
    record: Record | None = None
    #: Seconds to wait when BUSY.
    wait_s: float = 0.0
    rev: str = "0"


class Verdict(StrEnum):
    """Whether an attempt may go on."""

    OK = "ok"
    #: Redis has lost the task.
    ABSENT = "absent"
    #: Redis has lost the last of the text: all of it is to be written again.
    BEHIND = "behind"
    #: Another attempt holds the task now.
    FENCED = "fenced"
    CANCELLED = "cancelled"
    #: The deadline has passed.
    OVERDUE = "overdue"


class Moved(StrEnum):
    """How a transition ended."""

    OK = "ok"
    ABSENT = "absent"
    #: The task was terminal already.
    ENDED = "ended"
    FENCED = "fenced"
    #: A cancel came first; only CANCELLED can follow.
    CANCELLED = "cancelled"
    #: The revision is not the one that was read.
    MOVED = "moved"
    #: The lease lives after all.
    ALIVE = "alive"


@dataclass(frozen=True, slots=True)
class Transition:
    """The answer to a transition."""

    outcome: Moved
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """The control fields of a task, as the janitor and others read them."""

    status: str
    attempt: int
    failures: int
    rev: str
    lease_ms: int
    due_ms: int
    deadline_ms: int
    ttl_ms: int
    cancel: bool
    worker: str
    tokens: int
    prompt_tokens: int
    fingerprint: str
    envelope: str
    queue_until_ms: int
    attempt_s: int
    #: Tokens that ended attempts have used, and nanodollars; None where no price is known.
    spent_prompt: int
    spent_completion: int
    spent_nano: int | None
    #: Milliseconds since 1970 at which it became terminal; 0 before.
    ended_ms: int
    #: Whether the submit was taken back: there never was such a task.
    refused: bool
    webhook: str = ""
    #: Milliseconds since 1970 until when it is parked, because no engine could take it; 0: it is not.
    parked_ms: int = 0

    @classmethod
    def of(cls, fields: dict[str, str]) -> Control:
        """Read the hash; fields that are not there count as empty or 0."""

        def number(name: str) -> int:
            return int(fields.get(name) or 0)

        return cls(
            status=fields["status"],
            attempt=number("attempt"),
            failures=number("failures"),
            rev=fields.get("rev", "0"),
            lease_ms=number("lease"),
            due_ms=number("due"),
            deadline_ms=number("deadline"),
            ttl_ms=number("ttl"),
            cancel="cancel" in fields,
            worker=fields.get("worker", ""),
            tokens=number("tokens"),
            prompt_tokens=number("prompt_tokens"),
            fingerprint=fields.get("fingerprint", ""),
            envelope=fields.get("envelope", "{}"),
            queue_until_ms=number("queue_until"),
            attempt_s=number("attempt_s"),
            spent_prompt=number("spent_prompt"),
            spent_completion=number("spent_completion"),
            spent_nano=number("spent_nano") if "spent_nano" in fields else None,
            ended_ms=number("ended"),
            refused="refused" in fields,
            webhook=fields.get("webhook", ""),
            parked_ms=number("parked"),
        )

    @property
    def is_untouched(self) -> bool:
        """Whether no attempt has begun yet, and nothing else has happened to the task either."""
        return self.status == "PENDING" and not (self.attempt or self.failures or self.cancel)

    @property
    def terms(self) -> Terms:
        """The terms under which the task was accepted."""
        return Terms(
            self.ttl_ms,
            self.deadline_ms,
            self.fingerprint,
            queue_until_ms=self.queue_until_ms,
            attempt_s=self.attempt_s,
            envelope=self.envelope,
            webhook=self.webhook,
        )

    def is_stale(self, now_ms: float) -> bool:
        """Whether the task has waited for its first attempt longer than it may."""
        return self.attempt == 0 and 0 < self.queue_until_ms <= now_ms


def dump(record: Record, *without: str) -> str:
    """The record as a JSON object, without the fields that the script stamps."""
    shown: dict[str, Any] = record.as_dict()
    for name in without:
        del shown[name]
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
