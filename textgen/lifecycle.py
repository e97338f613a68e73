"""The lifecycle of a task: its states, the transitions allowed, its record and its events. Pure.

Everything here is data: nothing reads a clock, a setting or a socket. Changes of status happen in
the store's scripts, which keep to `TRANSITIONS`.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

#: Version of message, record and events. A worker that meets a newer one leaves the message alone.
VERSION = 1
#: Tokens that one attempt can have used; the scripts in `textgen.store` know the same bound.
MAX_TOKENS = 10**12


class Status(StrEnum):
    """Where a task is in its life."""

    #: Accepted and durably queued, or waiting for its next attempt.
    PENDING = "PENDING"
    #: An attempt holds the lease and generates.
    PROCESSING = "PROCESSING"
    #: The text is complete.
    COMPLETED = "COMPLETED"
    #: It ended without a complete text; `error` says why.
    FAILED = "FAILED"
    #: Somebody cancelled it; what had been generated is kept.
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the status can never change again."""
        return not TRANSITIONS[self]


#: Status → the statuses that may follow it. PROCESSING → PENDING is the only step back (a retry, a
#: lapsed lease, a hand-back), and shows as a new attempt. PENDING → COMPLETED does not exist:
#: nothing completes without an attempt.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.PROCESSING, Status.FAILED, Status.CANCELLED}),
    Status.PROCESSING: frozenset({Status.PENDING, Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}

Lane = Literal["interactive", "bulk"]


def new_task_id() -> str:
    """Make the id of a task: a random UUID, lower case, with hyphens."""
    return str(uuid.uuid4())


def is_task_id(value: object) -> bool:
    """Whether `value` is a task id as `new_task_id` makes them: a lower-case UUID, version 4."""
    if not isinstance(value, str) or len(value) != 36:
        return False
    try:
        parsed = uuid.UUID(value)
    except ValueError:
        return False
    return parsed.version == 4 and str(parsed) == value


def iso_time(ms: float) -> str:
    """A time in milliseconds since 1970 as ISO 8601 in UTC, as records show it."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_ms(text: str) -> float:
    """The time that `iso_time` wrote, in milliseconds since 1970."""
    return datetime.fromisoformat(text).timestamp() * 1000


@dataclass(frozen=True, slots=True)
class Usage:
    """What a generation consumed: tokens, and dollars where a price is known."""

    #: All of them, those from a cache included.
    prompt_tokens: int = 0
    #: All of them, also those that the model only thought.
    completion_tokens: int = 0
    cost_usd: float | None = None
    #: Tokens of the prompt that the provider or the runtime had in a cache.
    cached_tokens: int = 0
    #: Tokens that the model thought and did not say.
    reasoning_tokens: int = 0

    @property
    def is_counted(self) -> bool:
        """Whether all are whole numbers of tokens that can have been."""
        counts = (self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.reasoning_tokens)
        return all(type(count) is int and 0 <= count <= MAX_TOKENS for count in counts)

    def as_dict(self) -> dict[str, Any]:
        """The record's `usage` object, `total_tokens` included."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cost_usd": self.cost_usd,
        }

    @classmethod
    def from_dict(cls, shown: dict[str, Any]) -> Usage:
        """Rebuild it from `as_dict`'s object; what it lacks counts as nothing."""
        return cls(**{name: shown[name] for name in cls.__slots__ if name in shown})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task or an attempt failed, as the record's `error` shows it."""

    #: A stable word for programs: `deadline`, `worker_lost`, `invalid_message`, an error's name …
    type: str
    #: One sentence for people, without prompt, result or key.
    message: str
    #: Whether submitting the same request again can succeed.
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A task as everybody reads it under `task:<id>`.

    Times are ISO 8601 in UTC, set by the store from its own clock; None until they happen.
    """

    task_id: str
    status: Status = Status.PENDING
    prompt: str | None = None
    messages: list[dict[str, str]] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    owner: str = "default"
    priority: int = 5
    lane: Lane = "interactive"
    result: str | None = None
    error: Failure | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    engine: str | None = None
    model: str | None = None
    #: By which the provider's support finds the newest attempt, where there is a provider.
    provider_request_id: str | None = None
    attempt: int = 0
    failures: int = 0
    #: The newest engines that an attempt tried in vain or passed over: {`engine`, `model`, `attempt`,
    #: `round` (failures of the task before), `reason`, `retryable`, `called`}.
    tried: list[dict[str, Any]] = field(default_factory=list)
    cached: bool = False
    replay_of: str | None = None
    #: {`events`}: what its webhook is told. The address may hold secrets and stands elsewhere.
    webhook: dict[str, list[str]] | None = None
    created_at: str | None = None
    started_at: str | None = None
    updated_at: str | None = None
    finished_at: str | None = None
    deadline: str | None = None
    v: int = VERSION

    def as_dict(self) -> dict[str, Any]:
        """The record as the JSON object that Redis and HTTP show."""
        shown = {name: getattr(self, name) for name in self.__slots__}
        shown["status"] = self.status.value
        shown["error"] = asdict(self.error) if self.error else None
        shown["usage"] = self.usage.as_dict() if self.usage else None
        return shown

    @classmethod
    def from_dict(cls, shown: dict[str, Any]) -> Record:
        """Rebuild a record from `as_dict`'s object; fields it does not know are left out."""
        known = {name: shown[name] for name in cls.__slots__ if name in shown}
        known["status"] = Status(known["status"])
        if known.get("error"):
            known["error"] = Failure(**known["error"])
        if known.get("usage"):
            known["usage"] = Usage.from_dict(known["usage"])
        return cls(**known)

    def but(self, **changes: Any) -> Record:
        """A copy with `changes`."""
        return replace(self, **changes)


#: What an entry of the event log can be. `state`: the status changed. `chunk`: text of an attempt.
#: `usage`: tokens so far. `reset`: the text of the attempts before is void.
EventType = Literal["state", "chunk", "usage", "reset"]


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a task's ordered event log, `events:{task:<id>}`."""

    #: `<seq>-<attempt>`: sorts as the log does, and serves as the place to resume from.
    id: str
    type: EventType
    attempt: int
    #: `state`: {`status`, `at`}. `chunk`: {`text`}. `usage`: the token counts. `reset`: {`reason`}.
    data: dict[str, Any]
