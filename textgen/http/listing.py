"""The tasks of an owner as a list, and out of it: two more operations of the resource `/v1/tasks`."""

from __future__ import annotations

from flask import Response, jsonify
from structlog.contextvars import bind_contextvars

from textgen import client
from textgen.errors import InvalidRequest
from textgen.http.access import owner
from textgen.http.operations import LIST_RESPONSE, LIST_SCHEMAS, problem_responses
from textgen.http.parameters import ListQuery, NoParameters, TaskPath
from textgen.http.records import shown
from textgen.http.tasks import blueprint
from textgen.selection import Selection

blueprint.components_schemas.update(LIST_SCHEMAS)

#: How a parameter begins that names a key of `metadata`.
METADATA = "metadata."


@blueprint.get("", operation_id="listTasks", responses={200: LIST_RESPONSE, **problem_responses(422, 503)})
def list_tasks(query: ListQuery) -> Response:
    """List your tasks, newest first.

    All conditions given must hold. `metadata.<key>=<value>` is one for each key that the server's
    `TEXTGEN_INDEXED_METADATA` names; other keys are refused. A value that is no text is given as JSON.
    The list goes on with `cursor` until `next_cursor` is null; where matching tasks lie far apart, pages
    before may hold fewer than `limit` tasks.
    """
    wanted = Selection(query.status, query.engine, query.created_after, _metadata(query))
    page = client.list_page(wanted, query.limit, query.cursor, owner())
    return jsonify(data=shown(page.records), next_cursor=page.next_cursor)


@blueprint.delete(
    "/<task_id>",
    operation_id="deleteTask",
    responses={204: {"description": "Deleted."}, **problem_responses(404, 409, 422, 503)},
)
def delete(path: TaskPath, query: NoParameters) -> Response:
    """Delete a task that has ended: record, events, and its places in lists."""
    client.delete(path.task_id, owner())
    bind_contextvars(task_id=path.task_id)
    return Response(status=204)


def _metadata(query: ListQuery) -> dict[str, str]:
    given = query.model_extra or {}
    unknown = [name for name in given if not name.startswith(METADATA)]
    if unknown:
        raise InvalidRequest.of(*({"field": name, "reason": "is not a parameter"} for name in unknown))
    return {name.removeprefix(METADATA): text for name, text in given.items()}
