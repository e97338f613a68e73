"""The resource `/v1/usage`: the ledger of the caller's owner."""

from __future__ import annotations

from datetime import timedelta

from flask import Response, jsonify
from flask_openapi.blueprint import APIBlueprint

from textgen import client
from textgen.http.access import owner
from textgen.http.operations import KEYED, problem_responses
from textgen.http.schemas import UsageList, UsageQuery

blueprint = APIBlueprint("usage", __name__, url_prefix="/v1/usage", abp_tags=[{"name": "usage"}], **KEYED)

#: Days shown where none are named.
DAYS = 30


@blueprint.get("", operation_id="readUsage", responses={200: UsageList, **problem_responses(422, 503)})
def read(query: UsageQuery) -> Response:
    """Read what each key used on each day: tasks that ended, their tokens and what they cost."""
    last = query.last or client.today()
    first = query.first or last - timedelta(days=DAYS - 1)
    return jsonify({"data": [row.as_dict() for row in client.usage(first, last, owner())]})
