"""OpenAI, and every server that speaks as it does, through the official SDK.

By Chat Completions or by Responses (`OPENAI_API`): compatible servers often have only the former.
Retrying is the queue's work, so that the SDK's own is off.
"""

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
    "stop": "stop",
    "length": "length",
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}


class OpenAIEngine(Engine):
    """The models of OpenAI, or of the server at `OPENAI_BASE_URL`."""

    name = "openai"
    is_remote = True

    @classmethod
    def missing(cls, settings: Settings) -> str | None:
        if importlib.util.find_spec("openai") is None:
            return "The engine openai needs its SDK: pip install 'textgen[openai]'."
        if not settings.openai_api_key.get_secret_value() and not settings.openai_base_url:
            return "The engine openai needs a key: set OPENAI_API_KEY."
        return None

    def default_max_tokens(self) -> int:
        return self.settings.openai_max_tokens or super().default_max_tokens()

    def setup(self) -> None:
        missing = self.missing(self.settings)
        if missing:
            raise PermanentEngineError(missing)
        import openai

        from textgen.engines import provider

        self._sdk, self._provider = openai, provider
        self._client: Any = openai.OpenAI(
            # servers of your own mostly want none, the SDK insists
            api_key=self.settings.openai_api_key.get_secret_value() or "none",
            base_url=self.settings.openai_base_url or None,
            max_retries=0,
            timeout=provider.timeout(self.settings),
            http_client=openai.DefaultHttpxClient(limits=provider.limits()),
        )

    def check(self) -> None:
        with self._provider.sorted_errors(self._sdk, self.name, "OPENAI_API_KEY"):
            self._client.models.list()

    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        speak = self._responses if self.settings.openai_api == "responses" else self._chat
        with self._provider.sorted_errors(self._sdk, self.name, "OPENAI_API_KEY"):
            yield from speak(request)

    def _chat(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        # OpenAI's own models want the new name, other servers know the old one
        limit = "max_tokens" if self.settings.openai_base_url else "max_completion_tokens"
        asked = self._common(request) | {
            limit: request.max_tokens,
            "messages": list(request.messages),
            "stop": list(request.stop) or None,
            "seed": request.seed,
        }
        reason, usage, model = None, None, None
        stream = self._client.chat.completions.create(
            **self._provider.given(asked), stream=True, stream_options={"include_usage": True}
        )
        with stream, self._provider.sensible(self.name):
            for piece in stream:
                model = piece.model or model
                if piece.usage:
                    usage = Usage(piece.usage.prompt_tokens, piece.usage.completion_tokens)
                for choice in piece.choices:
                    text = choice.delta.content or choice.delta.refusal or ""
                    yield Chunk(text, 1 if text else 0)
                    reason = choice.finish_reason or reason
        if reason is None:
            raise self._provider.broken_off(self.name)
        yield Finish(REASONS.get(reason, "stop"), usage or Usage(0, 0), model)

    def _responses(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        if request.stop or request.seed is not None:
            raise PermanentEngineError("OpenAI's Responses know neither stop nor seed: set OPENAI_API=chat")
        asked = self._common(request) | {
            "max_output_tokens": request.max_tokens,
            "input": [_input(turn) for turn in request.messages],
            "store": False,
        }
        stream = self._client.responses.create(**self._provider.given(asked), stream=True)
        with stream, self._provider.sensible(self.name):
            for event in stream:
                if event.type in ("response.output_text.delta", "response.refusal.delta"):
                    yield Chunk(event.delta)
                elif event.type in ("response.completed", "response.incomplete"):
                    yield self._end_of(event.response, request.max_tokens)
                    return
                elif event.type in ("response.failed", "error"):
                    break
        raise self._provider.broken_off(self.name)

    def _end_of(self, response: Any, max_tokens: int) -> Finish:
        details, used = response.incomplete_details, response.usage
        reason = details.reason if details and details.reason else "stop"
        usage = Usage(used.input_tokens, used.output_tokens) if used else Usage(0, 0)
        if reason == "stop" and usage.completion_tokens >= max_tokens:
            reason = "length"  # not every compatible server says so
        return Finish(REASONS.get(reason, "stop"), usage, response.model)

    def _common(self, request: EngineRequest) -> dict[str, Any]:
        model = request.model or self.settings.openai_model
        if not model:
            raise PermanentEngineError("the request names no model, and OPENAI_MODEL is not set")
        temperature = request.temperature
        if temperature is None:
            temperature = self.settings.openai_temperature
        return {"model": model, "temperature": temperature, "top_p": request.top_p}


def _input(turn: dict[str, str]) -> dict[str, Any]:
    """A turn as Responses takes it: what the model said is output."""
    kind = "output_text" if turn["role"] == "assistant" else "input_text"
    return {"type": "message", "role": turn["role"], "content": [{"type": kind, "text": turn["content"]}]}
