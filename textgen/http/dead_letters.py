"""The resource `/v1/dead-letters`, for operators: list, show, replay and purge."""

from __future__ import annotations

from flask import Response, jsonify, url_for
from flask_openapi.blueprint import APIBlueprint

from textgen import client
from textgen.http.operations import (
    EXAMPLE_ID,
    KEYED,
    components,
    example_response,
    problem_responses,
    record_response,
)
from textgen.http.parameters import LimitQuery, NoParameters, TaskPath
from textgen.http.schemas import DeadLetterItem, DeadLetterList, Purged
from textgen.lifecycle import Status

blueprint = APIBlueprint(
    "dead-letters", __name__, url_prefix="/v1/dead-letters", abp_tags=[{"name": "dead letters"}], **KEYED
)


blueprint.components_schemas.update(components(DeadLetterItem, DeadLetterList, Purged))

EXAMPLE = {
    "id": EXAMPLE_ID,
    "reason": "worker_lost",
    "queue": "text_generation_tasks",
    "at": "2026-11-02T09:31:00.000Z",
    "attempts": [{"attempt": 1, "error": {"type": "worker_lost", "message": "the worker stopped renewing"}}],
    "trace_id": EXAMPLE_ID,
    "owner": "default",
    "request": {"prompt": "Why is the sky blue?"},
}


@blueprint.get(
    "",
    operation_id="listDeadLetters",
    responses={
        200: example_response("The newest.", DeadLetterList, {"data": [EXAMPLE]}),
        **problem_responses(422, 503),
    },
)
def newest(query: LimitQuery) -> Response:
    """List the newest dead letters, newest first."""
    return _answer({"data": [letter.as_dict() for letter in client.dead_letters(query.limit)]})


@blueprint.get(
    "/<task_id>",
    operation_id="readDeadLetter",
    responses={
        200: example_response("The dead letter.", DeadLetterItem, EXAMPLE),
        **problem_responses(404, 422, 503),
    },
)
def read(path: TaskPath, query: NoParameters) -> Response:
    """Read a dead letter: why it is one, what became of its attempts, what it asked for."""
    return _answer(client.dead_letter(path.task_id).as_dict())


@blueprint.post(
    "/<task_id>/replay",
    operation_id="replayDeadLetter",
    responses={
        202: record_response("Submitted again, as a new task.", Status.PENDING, location=True),
        **problem_responses(402, 404, 422, 429, 503),
    },
)
def replay(path: TaskPath, query: NoParameters) -> Response:
    """Submit what a dead letter asked for as a new task, whose `replay_of` names the letter."""
    record = client.replay(path.task_id)
    answer = _answer(record.as_dict())
    answer.status_code = 202
    answer.headers["Location"] = url_for("tasks.read", task_id=record.task_id)
    answer.headers["Retry-After"] = "1"
    return answer


@blueprint.delete(
    "",
    operation_id="purgeDeadLetters",
    responses={200: example_response("How many.", Purged, {"purged": 3}), **problem_responses(422, 503)},
)
def purge(query: NoParameters) -> Response:
    """Delete all dead letters."""
    return _answer({"purged": client.purge_dead_letters()})


def _answer(shown: dict[str, object]) -> Response:
    return jsonify(shown)
