"""The exit codes of every command: one table, shown by `textgen --help`."""

from __future__ import annotations

from textgen.errors import (
    ConfigurationError,
    InvalidRequest,
    TextgenError,
    Unavailable,
    UnknownTask,
    WaitTimeout,
)
from textgen.lifecycle import Record, Status

DONE, FAILED, USAGE, UNKNOWN, UNAVAILABLE, TIMEOUT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

#: Exit code → what it tells the caller.
EXIT_CODES: dict[int, str] = {
    DONE: "done",
    FAILED: "the task FAILED or was cancelled; for `cancel`: it had already ended; for `check`: "
    "something is wrong",
    USAGE: "wrong usage, request or setting",
    UNKNOWN: "no task has this id",
    UNAVAILABLE: "broker, store or server unavailable",
    TIMEOUT: "time-out; the task goes on",
    INTERRUPTED: "interrupted (Ctrl-C); a task that was submitted goes on",
}

#: Error → exit code; every other error of textgen is FAILED.
_CODES: tuple[tuple[type[TextgenError], int], ...] = (
    (InvalidRequest, USAGE),
    (ConfigurationError, USAGE),
    (UnknownTask, UNKNOWN),
    (Unavailable, UNAVAILABLE),
    (WaitTimeout, TIMEOUT),
)

#: What the outcomes of several tasks come to: the first of these that occurred.
_PRECEDENCE = (UNAVAILABLE, TIMEOUT, USAGE, UNKNOWN, FAILED, DONE)


def code_of(outcome: Record | TextgenError) -> int:
    """The exit code that one outcome stands for."""
    if isinstance(outcome, Record):
        return DONE if outcome.status is Status.COMPLETED else FAILED
    return next((code for error, code in _CODES if isinstance(outcome, error)), FAILED)


def code_of_all(outcomes: list[Record | TextgenError]) -> int:
    """The exit code that several outcomes come to together."""
    codes = {code_of(outcome) for outcome in outcomes}
    return next((code for code in _PRECEDENCE if code in codes), DONE)
