"""Every answer that is not a success, as RFC 9457 `application/problem+json`.

Views raise textgen's own errors or werkzeug's; here they become answers. Nothing that the caller
sent is repeated but the names of fields.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, NoReturn

import structlog
from flask import Flask, Response
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from textgen.errors import (
    BrokerUnavailable,
    BudgetExhausted,
    ConfigurationError,
    DuplicateTask,
    IdempotencyKeyReused,
    InvalidRequest,
    LimitExceeded,
    QueueFull,
    SecretShown,
    StoreBroken,
    StoreForbidden,
    StoreUnavailable,
    SubmitInFlight,
    TaskFinished,
    TaskUnfinished,
    Unavailable,
    UnknownTask,
)
from textgen.http.held import OPEN
from textgen.logs import outline
from textgen.requests import field_errors

log = structlog.get_logger(__name__)

#: Wrong fields that one answer names, and the characters of a field's name or reason it shows.
MAX_ERRORS, MAX_ERROR_CHARS = 20, 300
#: A limit's error → its status and its name. Waiting out a budget is not for programs, so it is no 429.
LIMITS = {
    BudgetExhausted: (402, "budget-exhausted"),
    QueueFull: (503, "queue-full"),
    LimitExceeded: (429, "limit-exceeded"),
}
#: What cannot be reached, by error.
PARTS = {BrokerUnavailable: "broker", StoreUnavailable: "store", StoreForbidden: "store"}


def problem(
    status: int, detail: str, kind: str | None = None, headers: Any = None, **members: Any
) -> Response:
    """Make the answer that says what went wrong.

    Args:
        status: HTTP status.
        detail: One sentence for people.
        kind: A stable word for programs, where the status alone does not say it.
        headers: Further headers, as pairs or a mapping.
        members: Further members of the problem object.
    """
    phrase = HTTPStatus(status).phrase
    shown = {
        "type": f"urn:textgen:problem:{kind}" if kind else "about:blank",
        "title": kind.replace("-", " ").capitalize() if kind else phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    answer = Response(json.dumps(shown), status, headers)
    answer.content_type = "application/problem+json"
    return answer


def refuse_parameters(exc: ValidationError) -> NoReturn:
    """Turn parameters of path or query that do not validate into the error of a bad field."""
    raise InvalidRequest.of(*field_errors(exc)) from None


def _on_invalid_request(exc: InvalidRequest) -> Response:
    shown = [
        {name: text[:MAX_ERROR_CHARS] for name, text in error.items()} for error in exc.errors[:MAX_ERRORS]
    ]
    count = len(exc.errors)
    detail = "One field is wrong." if count == 1 else f"{count} fields are wrong."
    if count > MAX_ERRORS:
        detail = f"{detail} The first {MAX_ERRORS} are named."
    return problem(422, detail, "invalid-request", errors=shown)


def _on_unknown_task(_: UnknownTask) -> Response:
    return problem(404, "No task has this id, or its record has expired.", "unknown-task")


def _on_finished_task(_: TaskFinished) -> Response:
    return problem(409, "The task has ended, so this can no longer be done.", "task-finished")


def _on_unfinished_task(_: TaskUnfinished) -> Response:
    return problem(409, "The task has not ended yet; cancel it first, or wait.", "task-unfinished")


def _on_shown_secret(_: SecretShown) -> Response:
    return problem(409, "The secret was shown before. Rotate it to be shown a new one.", "secret-shown")


def _on_duplicate_task(_: DuplicateTask) -> Response:
    return problem(409, "The task id was used before, for another request.", "duplicate-task")


def _on_reused_key(_: IdempotencyKeyReused) -> Response:
    detail = "The Idempotency-Key was used before, for another request; choose a new one."
    return problem(422, detail, "idempotency-key-reused")


def _on_in_flight(exc: SubmitInFlight) -> Response:
    detail = "The first request with this Idempotency-Key is still being accepted. Try again in a moment."
    return problem(409, detail, "submit-in-flight", {"Retry-After": str(exc.retry_after_s)})


def _on_limit(exc: LimitExceeded) -> Response:
    status, kind = next(answer for error, answer in LIMITS.items() if isinstance(exc, error))
    detail = f"Too many requests: {exc}." if exc.limit == OPEN else f"Nothing was queued: {exc}."
    return problem(status, detail, kind, {"Retry-After": str(exc.retry_after_s)}, limit=exc.limit)


def _on_unavailable(exc: Unavailable) -> Response:
    part = PARTS.get(type(exc), "service")
    log.warning("http.unavailable", part=part, reason=str(exc))
    detail = f"The {part} cannot be reached, so nothing was done. Try again later."
    return problem(503, detail, f"{part}-unavailable", {"Retry-After": str(exc.retry_after_s)})


def _on_broken(exc: StoreBroken) -> Response:
    log.error("http.store_broken", reason=str(exc), where=outline(exc))
    return problem(500, "The server made a mistake with its store; its log says which.")


def _on_configuration(exc: ConfigurationError) -> Response:
    log.error("http.misconfigured", reason=str(exc))
    return problem(503, "The server is not set up to accept tasks; its log says why.", "misconfigured")


def _on_http_exception(exc: HTTPException) -> Response:
    """Answer what Flask and werkzeug refuse themselves; also the 500 of an unforeseen error."""
    headers = [pair for pair in exc.get_headers() if pair[0].lower() != "content-type"]
    return problem(exc.code or 500, exc.description or "", headers=headers)


def install(app: Flask) -> None:
    """Make `app` answer every error with a problem."""
    app.register_error_handler(InvalidRequest, _on_invalid_request)
    app.register_error_handler(UnknownTask, _on_unknown_task)
    app.register_error_handler(TaskFinished, _on_finished_task)
    app.register_error_handler(TaskUnfinished, _on_unfinished_task)
    app.register_error_handler(SecretShown, _on_shown_secret)
    app.register_error_handler(DuplicateTask, _on_duplicate_task)
    app.register_error_handler(IdempotencyKeyReused, _on_reused_key)
    app.register_error_handler(SubmitInFlight, _on_in_flight)
    app.register_error_handler(LimitExceeded, _on_limit)
    app.register_error_handler(Unavailable, _on_unavailable)
    app.register_error_handler(StoreBroken, _on_broken)
    app.register_error_handler(ConfigurationError, _on_configuration)
    app.register_error_handler(HTTPException, _on_http_exception)
