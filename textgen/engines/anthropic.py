"""Anthropic's Messages, through the official SDK. Retrying is the queue's work: the SDK's own is off."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from textgen.engines.base import Chunk, Engine, EngineRequest, Finish, FinishReason
from textgen.errors import PermanentEngineError
from textgen.lifecycle import Usage
from textgen.settings import Settings

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


class AnthropicEngine(Engine):
    """The models of Anthropic, or of the server at `ANTHROPIC_BASE_URL`. A seed has no effect."""

    name = "anthropic"
    is_remote = True

    @classmethod
    def missing(cls, settings: Settings) -> str | None:
        if importlib.util.find_spec("anthropic") is None:
            return "The engine anthropic needs its SDK: pip install 'textgen[anthropic]'."
        if not settings.anthropic_api_key.get_secret_value() and not settings.anthropic_base_url:
            return "The engine anthropic needs a key: set ANTHROPIC_API_KEY."
        return None

    def default_max_tokens(self) -> int:
        return self.settings.anthropic_max_tokens or super().default_max_tokens()

    def setup(self) -> None:
        missing = self.missing(self.settings)
        if missing:
            raise PermanentEngineError(missing)
        import anthropic

        from textgen.engines import provider

        self._sdk, self._provider = anthropic, provider
        self._client: Any = anthropic.Anthropic(
            api_key=self.settings.anthropic_api_key.get_secret_value() or "none",
            base_url=self.settings.anthropic_base_url or None,
            max_retries=0,
            timeout=provider.timeout(self.settings),
            http_client=anthropic.DefaultHttpxClient(limits=provider.limits()),
        )

    def check(self) -> None:
        with self._provider.sorted_errors(self._sdk, self.name, "ANTHROPIC_API_KEY"):
            self._client.models.list()

    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        with self._provider.sorted_errors(self._sdk, self.name, "ANTHROPIC_API_KEY"):
            yield from self._messages(self._asked(request))

    def _messages(self, asked: dict[str, Any]) -> Iterator[Chunk | Finish]:
        reason, model = None, None
        prompt_tokens = completion_tokens = 0
        stream = self._client.messages.create(**asked, stream=True)
        with stream, self._provider.sensible(self.name):
            for event in stream:
                if event.type == "message_start":
                    model = event.message.model
                    prompt_tokens = event.message.usage.input_tokens
                    yield Chunk("", 0, prompt_tokens)
                elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                    yield Chunk(event.delta.text)
                elif event.type == "message_delta":
                    reason = event.delta.stop_reason or reason
                    prompt_tokens = event.usage.input_tokens or prompt_tokens
                    completion_tokens = event.usage.output_tokens
        if reason is None:
            raise self._provider.broken_off(self.name)
        yield Finish(REASONS.get(reason, "stop"), Usage(prompt_tokens, completion_tokens), model)

    def _asked(self, request: EngineRequest) -> dict[str, Any]:
        model = request.model or self.settings.anthropic_model
        if not model:
            raise PermanentEngineError("the request names no model, and ANTHROPIC_MODEL is not set")
        temperature = request.temperature
        if temperature is None:
            temperature = self.settings.anthropic_temperature
        if temperature is not None and temperature > MAX_TEMPERATURE:
            raise PermanentEngineError(f"temperature must be at most {MAX_TEMPERATURE:.0f} with anthropic")
        system = "\n\n".join(turn["content"] for turn in request.messages if turn["role"] == "system")
        asked = {
            "model": model,
            "max_tokens": request.max_tokens,
            "messages": [_turn(turn) for turn in request.messages if turn["role"] != "system"],
            "system": system or None,
            "stop_sequences": list(request.stop) or None,
            # the SDK has no arguments for these any more
            "extra_body": self._provider.given({"temperature": temperature, "top_p": request.top_p}) or None,
        }
        return self._provider.given(asked)


def _turn(turn: dict[str, str]) -> dict[str, Any]:
    """A turn as blocks, which all servers know."""
    return {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
