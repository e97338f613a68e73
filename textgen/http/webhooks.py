"""The resource `/v1/webhooks`: the secret that signs, and tests. A task's deliveries stand under the task."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Response, jsonify
from flask_openapi.blueprint import APIBlueprint

from textgen import client
from textgen.http.access import caller, owner
from textgen.http.body import read_object
from textgen.http.operations import (
    EXAMPLE_ID,
    KEYED,
    ROTATE_BODY,
    WEBHOOK_SCHEMAS,
    WEBHOOK_TEST_BODY,
    components,
    example_response,
    problem_responses,
)
from textgen.http.parameters import NoParameters, TaskPath
from textgen.http.schemas import (
    RotateRequest,
    WebhookAnswer,
    WebhookDeliveries,
    WebhookSecret,
    WebhookTestRequest,
)
from textgen.requests import parse

blueprint = APIBlueprint("webhooks", __name__, url_prefix="/v1", abp_tags=[{"name": "webhooks"}], **KEYED)
blueprint.components_schemas.update(WEBHOOK_SCHEMAS)
blueprint.components_schemas.update(components(WebhookDeliveries, WebhookAnswer, WebhookSecret))

EXAMPLE_SECRET = {"secret": "whsec_" + "RXhhbXBsZQ" * 4 + "RXg="}
EXAMPLE_ANSWER = {"delivered": True, "status_code": 204, "reason": "", "duration_ms": 84}
EXAMPLE_TRY = {
    "id": f"msg_{EXAMPLE_ID}_completed_1",
    "type": "task.completed",
    "number": 1,
    "outcome": "delivered",
    "status_code": 204,
    "reason": "",
    "duration_ms": 84,
    "next_at": None,
    "at": "2026-11-02T09:30:02.000Z",
}


@blueprint.get(
    "/tasks/<task_id>/webhook-deliveries",
    operation_id="listWebhookDeliveries",
    responses={
        200: example_response("The tries.", WebhookDeliveries, {"data": [EXAMPLE_TRY]}),
        **problem_responses(404, 422, 503),
    },
)
def deliveries(path: TaskPath, query: NoParameters) -> Response:
    """List the tries of a task's webhook deliveries, oldest first."""
    return jsonify(data=client.webhook_deliveries(path.task_id, owner()))


@blueprint.post(
    "/webhooks/test",
    operation_id="testWebhook",
    request_body=WEBHOOK_TEST_BODY,
    responses={
        200: example_response("What came of it.", WebhookAnswer, EXAMPLE_ANSWER),
        **problem_responses(400, 413, 415, 422, 503),
    },
)
def test(query: NoParameters) -> Response:
    """Send a signed `webhook.test` to an address, once, and say what came of it.

    A success makes an address that had answered 410 one that webhooks are sent to again.
    """
    answer = client.try_webhook(parse(WebhookTestRequest, read_object()).url, caller())
    return jsonify(delivered=answer.is_success, **_without(asdict(answer), "retry_after_s"))


@blueprint.post(
    "/webhooks/secret",
    operation_id="showWebhookSecret",
    responses={
        200: example_response("The secret.", WebhookSecret, EXAMPLE_SECRET),
        **problem_responses(409, 422, 503),
    },
)
def show_secret(query: NoParameters) -> Response:
    """Show the secret that webhooks of this API key are signed with: the first time only."""
    return jsonify(secret=client.webhook_secret(caller()))


@blueprint.post(
    "/webhooks/secret/rotate",
    operation_id="rotateWebhookSecret",
    request_body=ROTATE_BODY,
    responses={
        200: example_response("The secret.", WebhookSecret, EXAMPLE_SECRET),
        **problem_responses(400, 413, 415, 422, 503),
    },
)
def rotate_secret(query: NoParameters) -> Response:
    """Make a new secret and show it; for `overlap_s` seconds the present one signs too."""
    asked = parse(RotateRequest, read_object())
    return jsonify(secret=client.rotate_webhook_secret(caller(), asked.overlap_s))


def _without(shown: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in shown.items() if key != name}
