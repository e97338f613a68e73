"""The resource `/v1/tasks/<id>/events`: a task followed as it goes."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint
from structlog.contextvars import bind_contextvars

from textgen import client
from textgen.errors import InvalidRequest
from textgen.http import streams
from textgen.http.access import owner, require
from textgen.http.operations import KEYED, STREAM_RESPONSE, problem_responses
from textgen.http.parameters import EventHeaders, EventQuery, TaskPath

blueprint = APIBlueprint("events", __name__, url_prefix="/v1/tasks", abp_tags=[{"name": "tasks"}], **KEYED)


@blueprint.get(
    "/<task_id>/events",
    operation_id="streamTask",
    responses={
        200: STREAM_RESPONSE,
        204: {"description": "Nothing comes behind the event `end`: do not come back."},
        **problem_responses(404, 422, 429, 503),
    },
)
def follow(path: TaskPath, query: EventQuery, header: EventHeaders) -> Response:
    """Follow a task: every change of its state and every piece of its text, up to its end.

    A stream that breaks off is resumed behind the last event seen, by `Last-Event-ID` (or `after`),
    with any process of this server, also after the task has ended. Its `id`s are opaque. After a
    `reset`, all text before it is void and is written anew. A line that begins with a
    colon comes every 15 s while nothing happens.
    """
    after = header.last_event_id or query.after
    if after == streams.END:
        client.get(path.task_id, owner())
        return Response(status=204)
    if after and not client.is_position(after):
        field = "Last-Event-ID" if header.last_event_id else "after"
        raise InvalidRequest.of({"field": field, "reason": "is not the id of an event"})
    if query.cancel_on_disconnect:
        require("generate")
    answer = streams.respond(path.task_id, query.stream, after, query.cancel_on_disconnect, owner())
    bind_contextvars(task_id=path.task_id)
    return answer
