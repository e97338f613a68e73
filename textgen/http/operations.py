"""What the API's description says of requests and answers beyond the models: examples, headers, problems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask_openapi.models.request_body import RequestBody
from flask_openapi.models.schema import Schema
from flask_openapi.types import ResponseDict
from flask_openapi.utils import get_model_schema
from pydantic import BaseModel

from textgen.http.schemas import Problem, RotateRequest, WebhookBody, WebhookTestRequest
from textgen.http.task_schemas import Task, TaskList
from textgen.lifecycle import Record, Status, Usage
from textgen.requests import GenerationRequest

#: What most answers have, beside the headers that all do.
NO_HEADERS: Mapping[str, str] = {}
#: Tells a repeated submit from the first.
REPLAYED = {"Idempotent-Replayed": "`true` where the Idempotency-Key led to a task accepted before."}
#: The task that stands in all examples.
EXAMPLE_ID = "3f2b8c1e-9d4a-4c5b-8e7f-0a1b2c3d4e5f"
EXAMPLE_REQUEST = {"prompt": "Why is the sky blue?", "max_tokens": 64, "metadata": {"order": 17}}


def components(*models: type[BaseModel]) -> dict[str, Schema]:
    """The schemas of `models` and of what they are made of, by name."""
    found: dict[str, Schema] = {}
    for model in models:
        schema = get_model_schema(model)
        found |= {name: Schema(**inner) for name, inner in schema.pop("$defs", {}).items()}
        found[model.__name__] = Schema(**schema)
    return found


def _content(kind: str, model: type[BaseModel], example: Any) -> dict[str, Any]:
    return {kind: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}, "example": example}}


#: The body of a submit; the view reads it through `textgen.http.body`, not through flask-openapi.
SUBMIT_BODY = RequestBody(
    required=True, content=_content("application/json", GenerationRequest, EXAMPLE_REQUEST)
)
WEBHOOK_TEST_BODY = RequestBody(
    required=True,
    content=_content(
        "application/json", WebhookTestRequest, {"url": "https://example.com/hooks?from=textgen"}
    ),
)
ROTATE_BODY = RequestBody(
    required=True, content=_content("application/json", RotateRequest, {"overlap_s": 3600})
)
#: The schemas that the operations on webhooks refer to.
WEBHOOK_SCHEMAS = components(WebhookTestRequest, RotateRequest, WebhookBody)
#: The schemas that the operations on tasks refer to.
TASK_SCHEMAS = components(GenerationRequest, Task, Problem)
LIST_SCHEMAS = components(TaskList, Problem)


def example_record(status: Status) -> dict[str, Any]:
    """The example task, as it looks in `status`."""
    record = Record(
        EXAMPLE_ID,
        status,
        prompt=str(EXAMPLE_REQUEST["prompt"]),
        params=GenerationRequest.model_validate(EXAMPLE_REQUEST).params,
        metadata={"order": 17},
        created_at="2026-11-02T09:30:00.000Z",
        updated_at="2026-11-02T09:30:00.000Z",
        deadline="2026-11-03T09:30:00.000Z",
    )
    if status is Status.PENDING:
        return record.as_dict() | {"queue_position": 3, "eta_s": 4.5}
    record = record.but(attempt=1, engine="local", started_at="2026-11-02T09:30:00.020Z")
    record = record.but(result="Air scatters", finished_at="2026-11-02T09:30:01.500Z")
    if status is Status.COMPLETED:
        record = record.but(result="Air scatters blue light.", finish_reason="stop", usage=Usage(36, 7))
    return record.as_dict()


def example_response(description: str, model: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an answer that is a `model`, by an example; the model goes to the blueprint's schemas."""
    return {"description": description, "content": _content("application/json", model, example)}


#: What a webhook's receiver is sent.
WEBHOOKS = {
    "task": {
        "post": {
            "operationId": "taskChanged",
            "description": "Sent, signed as Standard Webhooks says, to the address that came with a task.",
            "requestBody": {
                "required": True,
                "content": _content(
                    "application/json",
                    WebhookBody,
                    {
                        "type": "task.completed",
                        "timestamp": "2026-11-02T09:30:01.500Z",
                        "data": example_record(Status.COMPLETED),
                    },
                ),
            },
            "responses": {
                "2XX": {"description": "Taken."},
                "410": {"description": "Gone: send nothing more to this address."},
            },
        }
    }
}


def record_response(
    description: str, status: Status, location: bool = False, headers: Mapping[str, str] = NO_HEADERS
) -> dict[str, Any]:
    """Describe an answer that is a record, by the example of one in `status`."""
    names = {} if status.is_terminal else {"Retry-After": "Seconds after which to ask again."}
    if location:
        names["Location"] = "Where the task is read."
    names |= headers
    return {
        "description": description,
        "headers": {
            name: {"description": text, "schema": {"type": "string"}} for name, text in names.items()
        },
        "content": _content("application/json", Task, example_record(status)),
    }


#: A task followed to its end, as the description shows it.
EXAMPLE_EVENTS = (
    ("1-0", "state", {"status": "PENDING", "at": "2026-11-02T09:30:00.000Z", "attempt": 0}),
    ("2-1", "state", {"status": "PROCESSING", "at": "2026-11-02T09:30:00.020Z", "attempt": 1}),
    ("3-1", "chunk", {"text": "Air scatters blue light.", "attempt": 1}),
    ("4-1", "state", {"status": "COMPLETED", "at": "2026-11-02T09:30:01.500Z", "attempt": 1}),
    ("end", "end", example_record(Status.COMPLETED)),
)
_STREAM_CONTENT = {
    # without a schema: OpenAPI 3.1 has none for the events of a stream
    "text/event-stream": {
        "example": "".join(
            f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
            for event_id, kind, data in EXAMPLE_EVENTS
        ),
    },
    "text/plain": {"schema": {"type": "string"}, "example": "Air scatters blue light."},
}
#: Describes a stream of events.
STREAM_RESPONSE = {
    "description": "The events: `state`, `chunk`, `reset` (all text before it is void) and at last `end`, "
    "the record; or with `stream=text` the text alone.",
    "content": _STREAM_CONTENT,
}
#: Describes what answers a submit beside 202.
SUBMIT_ENDED_RESPONSE = record_response(
    "The task's events as they come; or, with `Prefer: wait`, the task, which has ended.",
    Status.COMPLETED,
    location=True,
)
SUBMIT_ENDED_RESPONSE["content"] |= _STREAM_CONTENT
#: The page of a list that stands in the description.
EXAMPLE_PAGE = {
    "data": [example_record(Status.COMPLETED)],
    "next_cursor": "1762075800000-3f2b8c1e-9d4a-4c5b-8e7f-0a1b2c3d4e5f",
}
LIST_RESPONSE = {
    "description": "A page of the list.",
    "content": _content("application/json", TaskList, EXAMPLE_PAGE),
}


def problem_responses(*statuses: int) -> ResponseDict:
    """Describe the problems that an operation may answer."""
    return {status: _problem_response(HTTPStatus(status)) for status in statuses}


def _problem_response(status: HTTPStatus) -> dict[str, Any]:
    example: dict[str, Any] = {"type": "about:blank", "title": status.phrase, "status": status.value}
    example["detail"] = "What went wrong, in one sentence."
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        example["errors"] = [{"field": "prompt", "reason": "must contain some visible text"}]
    return {
        "description": status.phrase,
        "content": _content("application/problem+json", Problem, example),
    }


#: What blueprints are given whose operations need an API key, where keys are asked for.
KEYED: dict[str, Any] = {
    "abp_security": [{"bearer": []}],
    "abp_responses": problem_responses(401, 403),
}
