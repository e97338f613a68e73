"""The resource `/v1/cache`: results that answer the same request again."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi.blueprint import APIBlueprint

from textgen import client
from textgen.http.access import owner, require
from textgen.http.operations import KEYED, components, example_response, problem_responses
from textgen.http.parameters import NoParameters
from textgen.http.schemas import Cleared
from textgen.settings import get_settings

blueprint = APIBlueprint("cache", __name__, url_prefix="/v1/cache", abp_tags=[{"name": "cache"}], **KEYED)

blueprint.components_schemas.update(components(Cleared))


@blueprint.delete(
    "",
    operation_id="clearCache",
    responses={200: example_response("How many.", Cleared, {"cleared": 3}), **problem_responses(422, 503)},
)
def clear(query: NoParameters) -> Response:
    """Delete the cached results of the key's owner; of all owners, where they share them (scope `admin`).

    Tasks keep their texts. What is being generated goes on, and is cached.
    """
    if get_settings().cache_shared:
        require("admin")
    return jsonify({"cleared": client.clear_cache(owner())})
