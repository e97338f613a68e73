"""What the answers of a textgen server stand for: records, events, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from textgen.errors import (
    BrokerUnavailable,
    BudgetExhausted,
    Forbidden,
    IdempotencyKeyReused,
    InvalidRequest,
    LimitExceeded,
    QueueFull,
    StoreUnavailable,
    SubmitInFlight,
    TaskFinished,
    TaskUnfinished,
    TextgenError,
    Unauthenticated,
    Unavailable,
    UnknownTask,
)
from textgen.lifecycle import Record
from textgen.selection import Page
from textgen.store.ledger import Used

PROBLEM = "application/problem+json"
#: What stands in a problem's `type` before the word for programs.
URN = "urn:textgen:problem:"
#: The word in a problem's `type` → its error, where the status alone does not say which one it is.
KINDS: dict[str, type[TextgenError]] = {
    "idempotency-key-reused": IdempotencyKeyReused,
    "submit-in-flight": SubmitInFlight,
    "task-unfinished": TaskUnfinished,
    "limit-exceeded": LimitExceeded,
    "queue-full": QueueFull,
    "budget-exhausted": BudgetExhausted,
    "broker-unavailable": BrokerUnavailable,
    "store-unavailable": StoreUnavailable,
}


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a stream, as it came over the wire."""

    id: str
    #: `state`, `chunk`, `reset`, `end`, or what a newer server may say.
    kind: str
    data: dict[str, Any]


def events_of(response: httpx.Response) -> Iterator[Told]:
    """The events of a stream, up to where it ends or breaks off.

    Raises:
        Unavailable: It is no stream of a textgen server.
        httpx.HTTPError: The connection broke.
    """
    try:
        for event in EventSource(response).iter_sse():
            if event.data:
                yield Told(event.id, event.event, dict(json.loads(event.data)))
    except (SSEError, ValueError, TypeError) as exc:
        raise _foreign(response) from exc


def record_of(response: httpx.Response) -> Record:
    """The record in a response.

    Raises:
        Unavailable: There is none: it is no answer of a textgen server.
    """
    try:
        return Record.from_dict(response.json())
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise _foreign(response) from exc


def page_of(response: httpx.Response) -> Page:
    """The page of a list in a response.

    Raises:
        Unavailable: There is none: it is no answer of a textgen server.
    """
    try:
        shown = response.json()
        return Page([Record.from_dict(one) for one in shown["data"]], shown["next_cursor"])
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise _foreign(response) from exc


def usage_of(response: httpx.Response) -> list[Used]:
    """The rows of the ledger in a response.

    Raises:
        Unavailable: There are none: it is no answer of a textgen server.
    """
    try:
        return [Used.from_dict(one) for one in response.json()["data"]]
    except (ValueError, TypeError, KeyError) as exc:
        raise _foreign(response) from exc


def error_of(response: httpx.Response, task_id: str | None) -> Exception:
    """The error that a response stands for."""
    problem = _problem(response)
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {response.status_code}")
    known = KINDS.get(str(problem.get("type", "")).removeprefix(URN))
    if known:
        return _with_terms(known(detail), response, problem)
    if response.status_code == 401:
        return Unauthenticated(detail if problem else f"{response.url.host} answered {detail}")
    if response.status_code == 403:
        return Forbidden(detail if problem else f"{response.url.host} answered {detail}")
    if response.status_code in (400, 413, 415, 422):
        return _invalid(problem, detail)
    if task_id and problem and response.status_code == 404:
        return UnknownTask(f"no task has the id {task_id!r}, or its record has expired")
    if response.status_code == 409:
        return TaskFinished(detail)
    unavailable = Unavailable(detail if problem else f"{response.url.host} answered {detail}")
    return _with_terms(unavailable, response, problem)


def _with_terms(error: Exception, response: httpx.Response, problem: dict[str, Any]) -> Exception:
    """`error` with what the answer says of when to come back, and of the limit that is reached."""
    seconds = response.headers.get("Retry-After", "")
    if isinstance(error, Unavailable) and seconds.isdecimal():
        error.retry_after_s = int(seconds)
    if isinstance(error, LimitExceeded):
        error.limit = str(problem.get("limit", ""))
    return error


def _problem(response: httpx.Response) -> dict[str, Any]:
    """The body of a problem (RFC 9457), or `{}` where it is something else."""
    if response.headers.get("Content-Type", "").partition(";")[0].strip() != PROBLEM:
        return {}
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _invalid(problem: dict[str, Any], detail: str) -> InvalidRequest:
    listed = problem.get("errors")
    errors = [error for error in listed if isinstance(error, dict)] if isinstance(listed, list) else []
    if not errors:
        return InvalidRequest(detail)
    named = ({"field": str(e.get("field", "body")), "reason": str(e.get("reason", ""))} for e in errors)
    return InvalidRequest.of(*named)


def _foreign(response: httpx.Response) -> Unavailable:
    return Unavailable(f"{response.url.host} answered, but not as a textgen server does")
