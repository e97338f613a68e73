"""The resource `/v1/engines`: what a request may name as its engine."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi.blueprint import APIBlueprint

from textgen import client
from textgen.http.operations import KEYED, components, example_response, problem_responses
from textgen.http.parameters import NoParameters
from textgen.http.schemas import EngineList

blueprint = APIBlueprint(
    "engines", __name__, url_prefix="/v1/engines", abp_tags=[{"name": "engines"}], **KEYED
)
blueprint.components_schemas.update(components(EngineList))

EXAMPLE = {
    "data": [
        {
            "name": "openai",
            "default": True,
            "ready": True,
            "remote": True,
            "model": "gpt-5-mini",
            "models": [],
            "prices": {"gpt-5-mini": {"prompt": 0.25, "completion": 2.0, "cached": 0.025}},
            "limits": None,
        }
    ]
}


@blueprint.get(
    "",
    operation_id="listEngines",
    responses={200: example_response("The engines.", EngineList, EXAMPLE), **problem_responses(422)},
)
def list_engines(query: NoParameters) -> Response:
    """List the engines that a request may name, as this server's settings make them."""
    return jsonify({"data": [entry.as_dict() for entry in client.engines()]})
