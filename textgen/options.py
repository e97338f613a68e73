"""Celery's options of a submit, in textgen's terms: what `apply_async` is told besides the arguments."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from celery import Signature
from celery.canvas import maybe_signature
from celery.utils.functional import maybe_list
from kombu.utils import json as kombu_json

from textgen import lanes
from textgen.errors import InvalidRequest
from textgen.lifecycle import new_task_id
from textgen.requests import GenerationRequest, parse_request
from textgen.settings import get_settings


def read_envelope(text: str) -> dict[str, Any]:
    """The options that an envelope holds."""
    return dict(kombu_json.loads(text)) if text else {}


def with_ids(link: Any) -> list[Signature]:
    """Callbacks as Celery's option `link` has them, each task with an id: submitted twice, it runs once."""
    callbacks = [maybe_signature(one).clone() for one in maybe_list(link) or ()]
    for callback in callbacks:
        if callback.subtask_type is None:  # groups and chains get theirs as they are submitted
            callback.options.setdefault("task_id", new_task_id())
    return callbacks


def have_ids(callbacks: list[dict[str, Any]] | None) -> bool:
    """Whether there are callbacks, and all of them may be submitted again."""
    return bool(callbacks) and all(one.get("options", {}).get("task_id") for one in callbacks or ())


def with_options(request: GenerationRequest, options: dict[str, Any]) -> GenerationRequest:
    """Let Celery's options `priority`, `queue` and `expires` speak where the request does not."""
    changes: dict[str, Any] = {}
    priority = options.get("priority")
    if priority is not None and "priority" not in request.model_fields_set:
        changes["priority"] = priority
    queue = options.get("queue")
    if queue is not None:
        changes |= _of_queue(getattr(queue, "name", queue), request)
    expires = options.get("expires")
    if expires is not None and request.deadline_s is None:
        changes["deadline_s"] = max(1, math.ceil(_seconds_until(expires)))
    if not changes:
        return request
    return parse_request({**request.as_kwargs(), **changes})


def _of_queue(name: str, request: GenerationRequest) -> dict[str, Any]:
    """What a queue's name asks for: its lane and, where that is an engine's own, the engine."""
    settings = get_settings()
    lane = lanes.of_queue(name, settings)
    if lane is None:
        names = ", ".join(one.queue(settings) for one in lanes.every(settings))
        raise InvalidRequest.of({"field": "queue", "reason": f"must be one of {names}"})
    if lane.engine is None:
        return {"lane": lane.kind}
    if request.engine not in (None, lane.engine):
        reason = f"is the engine {lane.engine}'s, and the request names {request.engine}"
        raise InvalidRequest.of({"field": "queue", "reason": reason})
    return {"lane": lane.kind, "engine": lane.engine}


def _seconds_until(moment: Any) -> float:
    """Seconds until `moment`: a number of seconds, a datetime, or one in ISO 8601."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - datetime.now(UTC)).total_seconds()
    return float(moment)


def due_s(options: dict[str, Any]) -> float:
    """Seconds before which no attempt may begin, from Celery's `countdown` and `eta`."""
    moment = options.get("eta") if options.get("countdown") is None else options["countdown"]
    return max(0.0, _seconds_until(moment)) if moment is not None else 0.0
