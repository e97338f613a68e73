"""The resource `/v1/usage`: the ledger of the caller's owner."""

from __future__ import annotations

from datetime import timedelta

from flask import Response, jsonify
from flask_openapi.blueprint import APIBlueprint

from textgen import client
from textgen.http.access import owner
from textgen.http.operations import KEYED, components, example_response, problem_responses
from textgen.http.parameters import UsageQuery
from textgen.http.schemas import UsageList

blueprint = APIBlueprint("usage", __name__, url_prefix="/v1/usage", abp_tags=[{"name": "usage"}], **KEYED)

blueprint.components_schemas.update(components(UsageList))

EXAMPLE = {
    "data": [
        {
            "day": "2026-11-02",
            "key": "0f1e2d3c4b5a",
            "requests": 12,
            "prompt_tokens": 340,
            "completion_tokens": 2210,
            "cost_usd": 0.0138,
        }
    ]
}
#: Days shown where none are named.
DAYS = 30


@blueprint.get(
    "",
    operation_id="readUsage",
    responses={200: example_response("The days.", UsageList, EXAMPLE), **problem_responses(422, 503)},
)
def read(query: UsageQuery) -> Response:
    """Read what each key used on each day: tasks that ended, their tokens and what they cost."""
    last = query.last or client.today()
    first = query.first or last - timedelta(days=DAYS - 1)
    return jsonify({"data": [row.as_dict() for row in client.usage(first, last, owner())]})
