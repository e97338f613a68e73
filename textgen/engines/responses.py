"""OpenAI's Responses: what is asked, and what their stream says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from textgen.engines.base import PULSE, Chunk, EngineRequest, Finish, FinishReason
from textgen.engines.usage import of_openai

#: Why a text is not complete, in the provider's words → in ours.
REASONS: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}


def asked(request: EngineRequest) -> dict[str, Any]:
    """What is asked beyond what both ways of speaking have."""
    return {
        "input": [_turn(turn) for turn in request.messages],
        "text": {"format": request.response_format} if request.response_format else None,
        "store": False,
    }


def _turn(turn: dict[str, str]) -> dict[str, Any]:
    """A turn as Responses takes it: what the model said is output."""
    kind = "output_text" if turn["role"] == "assistant" else "input_text"
    return {"type": "message", "role": turn["role"], "content": [{"type": kind, "text": turn["content"]}]}


def read(events: Iterable[dict[str, Any]], max_tokens: int) -> Iterator[Chunk | Finish]:
    """Translate a stream's events; where it ends before the text does, there is no `Finish`."""
    is_refused = False
    for event in events:
        kind = event.get("type")
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            is_refused = is_refused or kind == "response.refusal.delta"
            yield Chunk(event["delta"])
        elif kind in ("response.completed", "response.incomplete"):
            end = _end_of(event["response"], max_tokens)
            yield replace(end, reason="content_filter") if is_refused else end
            return
        elif kind in ("response.failed", "error"):
            return
        else:
            yield PULSE


def _end_of(response: dict[str, Any], max_tokens: int) -> Finish:
    details = response.get("incomplete_details") or {}
    usage = of_openai(response.get("usage") or {}, "input", "output")
    reason = REASONS.get(details.get("reason", ""), "stop")
    if reason == "stop" and usage.completion_tokens >= max_tokens:
        reason = "length"  # not every compatible server says so
    return Finish(reason, usage, response.get("model"))
