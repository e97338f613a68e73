"""The resource `/v1/tasks`: submit, read, wait for and cancel tasks."""

from __future__ import annotations

from contextlib import suppress

from flask import Response, jsonify, request, url_for
from flask_openapi.blueprint import APIBlueprint
from structlog.contextvars import bind_contextvars
from werkzeug.exceptions import BadRequest

from textgen import client, idempotency
from textgen.errors import LimitExceeded, StoreUnavailable, UnknownTask
from textgen.http import held, preferences, streams
from textgen.http.access import caller, owner
from textgen.http.body import read_object
from textgen.http.operations import (
    KEYED,
    REPLAYED,
    SUBMIT_BODY,
    SUBMIT_ENDED_RESPONSE,
    TASK_SCHEMAS,
    problem_responses,
    record_response,
)
from textgen.http.parameters import NoParameters, SubmitHeaders, SubmitQuery, TaskPath, WaitQuery
from textgen.http.records import shown
from textgen.lifecycle import Record, Status
from textgen.requests import parse_request

blueprint = APIBlueprint("tasks", __name__, url_prefix="/v1/tasks", abp_tags=[{"name": "tasks"}], **KEYED)
blueprint.components_schemas.update(TASK_SCHEMAS)

#: Seconds after which a task that has not ended is worth another look.
RETRY_AFTER_S = 1


@blueprint.post(
    "",
    operation_id="submitTask",
    request_body=SUBMIT_BODY,
    responses={
        200: SUBMIT_ENDED_RESPONSE,
        202: record_response("Accepted, durably.", Status.PENDING, location=True, headers=REPLAYED),
        **problem_responses(400, 402, 409, 413, 415, 422, 429, 503),
    },
)
def submit(query: SubmitQuery, header: SubmitHeaders) -> Response:
    """Submit a task. The answer comes once the task cannot be lost any more.

    With `Accept: text/event-stream` (or `stream`) it is the task's events; with `Prefer: wait=30` it
    comes when the task has ended or the time is up.

    Sent with the header `Idempotency-Key`, 1 to 255 visible ASCII characters of your own that are new for
    each request, it may be sent again for 24 hours: the same request then leads to the same task and the
    same answer, with `Idempotent-Replayed: true`; another one is refused (422).
    """
    asked, is_replay = parse_request(read_object()), False
    key = request.headers.get("Idempotency-Key")
    if key is None:
        record = client.submit(asked, caller=caller())
    else:
        record, is_replay = idempotency.submit(asked, _checked_key(key), caller())
    # The task is accepted from here on, whatever becomes of the stream or the wait.
    answer = _answer(record, 202, with_outlook=False)  # a repeated submit is answered alike
    with suppress(LimitExceeded, StoreUnavailable, UnknownTask):
        if form := query.stream or _accepted_form():
            answer = streams.respond(record.task_id, form, None, query.cancel_on_disconnect, owner())
        elif (wait_s := preferences.wait_s(header.prefer)) is not None:
            answer = _answer_in_time(record, wait_s)
    if is_replay:
        answer.headers["Idempotent-Replayed"] = "true"
    answer.headers["Location"] = url_for("tasks.read", task_id=record.task_id)
    return answer


@blueprint.get(
    "/<task_id>",
    operation_id="readTask",
    responses={
        200: record_response("The task as it is.", Status.COMPLETED),
        **problem_responses(404, 422, 429, 503),
    },
)
def read(path: TaskPath, query: WaitQuery) -> Response:
    """Read a task; with `wait_s`, as soon as it has ended or the time is up."""
    if query.wait_s:
        return _answer(_wait(path.task_id, query.wait_s))
    return _answer(client.get(path.task_id, owner()))


@blueprint.post(
    "/<task_id>/cancel",
    operation_id="cancelTask",
    responses={
        200: record_response("Cancelled; the text so far is kept.", Status.CANCELLED),
        **problem_responses(404, 409, 422, 503),
    },
)
def cancel(path: TaskPath, query: NoParameters) -> Response:
    """Cancel a task; once more changes nothing."""
    return _answer(client.cancel(path.task_id, owner()))


def _accepted_form() -> streams.Form | None:
    """The form of stream that the caller prefers to a record, if it does."""
    kinds = ("application/json", streams.TYPES["sse"])
    return "sse" if request.accept_mimetypes.best_match(kinds) == kinds[1] else None


def _answer_in_time(record: Record, wait_s: int) -> Response:
    """Answer an accepted submit once its task has ended, or `wait_s` seconds are over."""
    record = _wait(record.task_id, wait_s) if wait_s else record
    answer = _answer(record, 200 if record.status.is_terminal else 202)
    answer.headers["Preference-Applied"] = f"wait={wait_s}"
    return answer


def _wait(task_id: str, wait_s: float) -> Record:
    give_back = held.take(owner())
    try:
        return client.wait(task_id, wait_s, owner())
    finally:
        give_back()


def _checked_key(key: str) -> str:
    reason = idempotency.reason_against(key)
    if reason:
        raise BadRequest(f"The Idempotency-Key {reason}.")
    return key


def _answer(record: Record, status: int = 200, with_outlook: bool = True) -> Response:
    bind_contextvars(task_id=record.task_id)
    answer = jsonify(shown([record], with_outlook)[0])
    answer.status_code = status
    if not record.status.is_terminal:
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer
