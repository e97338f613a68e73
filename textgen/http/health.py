"""Whether the process is alive, and whether the parts behind it are."""

from __future__ import annotations

import threading
import time

from flask import Response, jsonify
from flask_openapi.blueprint import APIBlueprint

from textgen import client
from textgen.http.operations import components, example_response, problem_responses
from textgen.http.parameters import NoParameters
from textgen.http.problems import problem
from textgen.http.schemas import Alive, Ready

blueprint = APIBlueprint("health", __name__, abp_tags=[{"name": "health"}])

#: Seconds after which asking again is worth while.
RETRY_AFTER_S = 5
#: Seconds for which what was found serves all who ask.
FRESH_S = 1.0


class Findings:
    """What is wrong with each part, as it was found lately: nobody needs a key to ask.

    Looking connects to the broker anew, so it is done once at a time and not for each who asks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[str, str | None] = {}
        self._until = float("-inf")

    def parts(self) -> dict[str, str | None]:
        """Part → what is wrong with it, or None."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._parts = client.health()
                self._until = time.monotonic() + FRESH_S
            return self._parts


findings = Findings()

blueprint.components_schemas.update(components(Alive, Ready))

READY = {"status": "ready", "parts": {"broker": None, "store": None, "worker": None}}


@blueprint.get(
    "/healthz",
    operation_id="isAlive",
    responses={200: example_response("It answers.", Alive, {"status": "alive"}), **problem_responses(422)},
)
def alive(query: NoParameters) -> Response:
    """Say that the process answers. Nothing else is looked at."""
    return jsonify(status="alive")


@blueprint.get(
    "/readyz",
    operation_id="isReady",
    responses={200: example_response("All is there.", Ready, READY), **problem_responses(422, 503)},
)
def ready(query: NoParameters) -> Response:
    """Say whether broker, store and at least one worker are there."""
    parts = findings.parts()
    down = [name for name, reason in parts.items() if reason is not None]
    if down:
        detail = f"Not ready: {', '.join(down)} down."
        return problem(503, detail, "not-ready", {"Retry-After": str(RETRY_AFTER_S)}, parts=parts)
    return jsonify(status="ready", parts=parts)
