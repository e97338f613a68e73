"""The API's description, generated from the models that validate."""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, jsonify
from flask_openapi.blueprint import APIBlueprint

from textgen.http.operations import WEBHOOKS, problem_responses
from textgen.http.parameters import NoParameters

#: Shown at the top of the documentation.
DESCRIPTION = "Submit prompts, wait for or read the text that a language model writes for them."

blueprint = APIBlueprint("documentation", __name__, abp_tags=[{"name": "documentation"}])


@blueprint.get(
    "/openapi.json",
    operation_id="readOpenAPI",
    responses={
        200: {
            "description": "The document.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": {"openapi": "3.1.0"}}},
        },
        **problem_responses(422),
    },
)
def openapi(query: NoParameters) -> Response:
    """Read this document: OpenAPI 3.1."""
    document: dict[str, Any] = current_app.api_doc  # type: ignore[attr-defined]  # of flask_openapi's app
    return jsonify({**document, "webhooks": WEBHOOKS})
