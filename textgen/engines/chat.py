"""OpenAI's Chat Completions: what is asked, and what its stream says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from textgen.engines.base import PULSE, Chunk, EngineRequest, Finish, FinishReason
from textgen.engines.usage import of_openai

#: How the provider names the end of a text → how we do.
REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
}


def asked(request: EngineRequest) -> dict[str, Any]:
    """What is asked beyond what both ways of speaking have."""
    return {
        "messages": list(request.messages),
        "stop": list(request.stop) or None,
        "seed": request.seed,
        "response_format": format_of(request),
        "stream_options": {"include_usage": True},
    }


def format_of(request: EngineRequest) -> dict[str, Any] | None:
    """The form of the text as Chat Completions ask for it."""
    wanted = request.response_format
    if wanted is None or wanted["type"] != "json_schema":
        return wanted
    return {"type": "json_schema", "json_schema": {name: wanted[name] for name in wanted if name != "type"}}


def read(events: Iterable[dict[str, Any]]) -> Iterator[Chunk | Finish]:
    """Translate a stream's events; where it ends before the text does, there is no `Finish`."""
    reason, model, is_refused = None, None, False
    usage: dict[str, Any] = {}
    for piece in events:
        model = piece.get("model") or model
        usage = piece.get("usage") or usage
        choices = piece["choices"] if piece else ()
        if not choices:
            yield PULSE
        for choice in choices:
            delta = choice["delta"]
            is_refused = is_refused or bool(delta.get("refusal"))
            text = delta.get("content") or delta.get("refusal") or ""
            yield Chunk(text, 1 if text else 0)
            reason = choice.get("finish_reason") or reason
    if reason is not None:
        reason = "content_filter" if is_refused else reason
        yield Finish(REASONS.get(reason, "stop"), of_openai(usage, "prompt", "completion"), model)
