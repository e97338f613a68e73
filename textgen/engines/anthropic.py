"""Anthropic's Messages, through the official SDK."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from textgen.engines.base import PULSE, Chunk, EngineRequest, Finish, FinishReason
from textgen.engines.remote import RemoteEngine
from textgen.engines.usage import believed, count
from textgen.errors import EngineUnusable
from textgen.lifecycle import Usage
from textgen.servers import Server
from textgen.settings import Settings

if TYPE_CHECKING:
    from textgen.engines.provider import Exchange

#: How the provider names the end of a text → how we do.
REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
#: The highest temperature that there is.
MAX_TEMPERATURE = 1.0


class AnthropicEngine(RemoteEngine):
    """The models of Anthropic, or of the server at `ANTHROPIC_BASE_URL`."""

    name = "anthropic"
    sdk_name = "anthropic"
    default_url = "https://api.anthropic.com"

    @classmethod
    def server(cls, settings: Settings) -> Server:
        return Server(
            base_url=settings.anthropic_base_url,
            api_key=settings.anthropic_api_key,
            model=settings.anthropic_model,
            max_tokens=settings.anthropic_max_tokens,
            temperature=settings.anthropic_temperature,
        )

    def _connect(self, server: Server, options: dict[str, Any]) -> Any:
        client = self._sdk.Anthropic(base_url=server.base_url or self.default_url, **options)
        _ = client.messages  # imported on first use: not by all of the first requests at once
        return client

    def _speak(self, request: EngineRequest, exchange: Exchange) -> Iterator[Chunk | Finish]:
        stream = self._client.messages.create(**self._provider.given(self._asked(request)), stream=True)
        with stream:
            yield from exchange.carry(stream.response, _read, request.max_tokens)

    def _asked(self, request: EngineRequest) -> dict[str, Any]:
        if request.seed is not None:
            raise EngineUnusable(f"{self.name} knows no seed")
        temperature = self._temperature(request)
        if temperature is not None and temperature > MAX_TEMPERATURE:
            raise EngineUnusable(f"temperature must be at most {MAX_TEMPERATURE:.0f} with {self.name}")
        system = "\n\n".join(turn["content"] for turn in request.messages if turn["role"] == "system")
        # the SDK has no arguments for these any more
        body = self._provider.given({"temperature": temperature, "top_p": request.top_p})
        return {
            "model": self._model(request),
            "max_tokens": request.max_tokens,
            "messages": [_turn(turn) for turn in request.messages if turn["role"] != "system"],
            "system": system or None,
            "stop_sequences": list(request.stop) or None,
            "output_config": _output(request.response_format),
            "extra_body": body or None,
        }


def _output(asked: dict[str, Any] | None) -> dict[str, Any] | None:
    if asked is None:
        return None
    if asked["type"] != "json_schema":
        raise EngineUnusable("anthropic writes JSON by a schema only: give response_format one")
    return {"format": {"type": "json_schema", "schema": asked["schema"]}}


def _turn(turn: dict[str, str]) -> dict[str, Any]:
    """A turn as blocks, which all servers know."""
    return {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}


def _read(events: Iterable[dict[str, Any]]) -> Iterator[Chunk | Finish]:
    """Translate a stream's events; where it ends before the text does, there is no `Finish`."""
    reason, model = None, None
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    for event in events:
        kind = event.get("type")
        if kind == "content_block_delta" and event["delta"]["type"] == "text_delta":
            yield Chunk(event["delta"]["text"])
        elif kind == "message_start":
            model, first = event["message"].get("model"), event["message"].get("usage")
            yield Chunk("", 0, _used(first).prompt_tokens)
        elif kind == "message_delta":
            reason = event["delta"].get("stop_reason") or reason
            last = event.get("usage", {})
        else:
            yield PULSE
    if reason is not None:
        yield Finish(REASONS.get(reason, "stop"), _used(first, last), model)


@believed
def _used(*told: dict[str, Any]) -> Usage:
    """What was used, as events tell it: tokens that a cache was read or filled with are counted apart."""
    used = {name: value for one in told for name, value in one.items() if value}
    cached = count(used.get("cache_read_input_tokens", 0))
    rest = count(used.get("input_tokens", 0)) + count(used.get("cache_creation_input_tokens", 0))
    return Usage(
        rest + cached,
        count(used.get("output_tokens", 0)),
        cached_tokens=cached,
        reasoning_tokens=count(used.get("output_tokens_details", {}).get("thinking_tokens") or 0),
    )
