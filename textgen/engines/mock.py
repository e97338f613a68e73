"""The mock engine: deterministic text from the prompt, with delays and failures on demand.

For tests and load: it costs nothing. What it does is set for all requests by `TEXTGEN_MOCK_DELAY_S`
and `TEXTGEN_MOCK_FAILURE`, and for one request by the object `mock` in its metadata (`MockPlan`).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from textgen import structured
from textgen.engines.base import Chunk, Engine, EngineRequest, Finish, FinishReason
from textgen.engines.sample import Unknown, sample
from textgen.errors import EngineUnusable, PermanentEngineError, TransientEngineError
from textgen.lifecycle import Usage
from textgen.settings import Settings, variable

#: The words its sentences are made of.
WORDS = (
    *("a", "the", "one", "every", "quiet", "small", "green", "early", "long", "slowly", "at", "last"),
    *("river", "garden", "letter", "window", "morning", "train", "market", "stone", "lamp", "story"),
    *("carries", "opens", "follows", "finds", "keeps", "leaves", "meets", "again", "and", "then"),
    *("under", "over", "beside", "toward"),
)
#: Tokens of a text whose length nobody asked for.
TOKENS = 24
#: Seconds that `hangs` hangs, in steps that can be interrupted.
HANG_S, HANG_STEP_S = 3600.0, 0.5

#: `transient`: an error that passes. `permanent`: one that does not. `raises`: a bug of the engine.
#: `hangs`: no further piece for an hour. `dies_midway`: kills its process. `exits`: asks for its
#: end, by SystemExit. `streams_forever`: goes on past `max_tokens` and never ends.
Failure = Literal["transient", "permanent", "raises", "hangs", "dies_midway", "exits", "streams_forever"]


class MockPlan(BaseModel):
    """What the mock engine is to do for one request."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    delay_s: float | None = Field(None, ge=0, le=3600, description="Seconds before each token.")
    tokens: int | None = Field(None, ge=0, le=1_000_000, description="Tokens of the whole text.")
    failure: Failure | None = Field(None, description="Which failure to show.")
    times: int | None = Field(None, ge=0, description="Attempts that fail; all, or one that dies.")
    after: int = Field(0, ge=0, description="Tokens before the failure; at the latest it ends the text.")
    retry_after_s: float | None = Field(None, ge=0, description="What a transient failure asks for.")

    def fails(self, attempt: int) -> bool:
        """Whether attempt number `attempt` is one of those that fail."""
        times = 1 if self.times is None and self.failure == "dies_midway" else self.times
        return self.failure is not None and (times is None or attempt <= times)


class MockEngine(Engine):
    """Writes text that means nothing, the same for the same request."""

    name = "mock"

    @classmethod
    def default_model(cls, settings: Settings) -> str | None:
        return cls.name

    def models(self) -> list[str]:
        return [self.name]

    def setup(self) -> None:
        try:
            MockPlan(failure=self.settings.mock_failure or None)  # type: ignore[arg-type]
        except ValidationError as exc:
            raise EngineUnusable(f"{variable('mock_failure')}: {_reasons(exc)}") from None

    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        plan = self._plan(request)
        fails = plan.fails(request.attempt)
        words = _words(request)
        if request.response_format:
            listed = _json(request.response_format, words).split(" ")
            wanted, words = min(len(listed), plan.tokens or len(listed)), iter([*listed, ""])
        else:
            wanted = TOKENS if plan.tokens is None else plan.tokens
        endless = fails and plan.failure == "streams_forever"
        prompt_tokens = sum(len(turn["content"].split()) for turn in request.messages)
        text, count, reason = _StopFilter(request.stop), 0, _reason(wanted, request)
        for word in words:
            if fails and not endless and count >= min(plan.after, wanted, request.max_tokens):
                _fail(plan)
            if not endless and count >= min(wanted, request.max_tokens):
                text.end()
            else:
                self._pause(plan)
                text.add(word if count == 0 else f" {word}")
                count += 1
            if text.ready:
                yield Chunk(text.ready, text.tokens, prompt_tokens)
            if text.ended:
                break
        yield Finish("stop" if text.stopped else reason, Usage(prompt_tokens, count), "mock")

    def _plan(self, request: EngineRequest) -> MockPlan:
        given = request.metadata.get("mock", {})
        if not isinstance(given, dict):
            raise PermanentEngineError("metadata.mock must be an object")
        try:
            return MockPlan.model_validate({"failure": self.settings.mock_failure or None} | given)
        except ValidationError as exc:
            raise PermanentEngineError(f"metadata.mock cannot be followed: {_reasons(exc)}") from None

    def _pause(self, plan: MockPlan) -> None:
        delay_s = self.settings.mock_delay_s if plan.delay_s is None else plan.delay_s
        if delay_s:
            time.sleep(delay_s)


class _StopFilter:
    """Lets text through up to the first stop sequence, holding back what might be its beginning.

    After `add` or `end`, `ready` is the text let through, and `tokens` what it is made of.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops = stops
        self.ready, self.tokens = "", 0
        self.stopped = self.ended = False
        self._held, self._held_tokens = "", 0

    def add(self, piece: str) -> None:
        held = self._held + piece
        self._held_tokens += 1
        found = [at for stop in self.stops if (at := held.find(stop)) >= 0]
        self.stopped = self.ended = bool(found)
        self._let_through(held, min(found) if found else len(held) - self._doubtful(held))

    def end(self) -> None:
        self.ended = True
        self._let_through(self._held, len(self._held))

    def _doubtful(self, held: str) -> int:
        """How many characters at the end may be the beginning of a stop sequence."""
        sizes = (s for stop in self.stops for s in range(1, len(stop)) if held.endswith(stop[:s]))
        return max(sizes, default=0)

    def _let_through(self, held: str, size: int) -> None:
        self.ready, self._held = held[:size], held[size:]
        self.tokens = self._held_tokens if self.ready else 0
        self._held_tokens -= self.tokens


def _words(request: EngineRequest) -> Iterator[str]:
    asked = repr((request.messages, request.seed, request.temperature, request.top_p))
    choice = random.Random(hashlib.sha256(asked.encode()).digest())  # noqa: S311 - repeatable by design
    while True:
        yield choice.choice(WORDS)


def _json(wanted: dict[str, Any], words: Iterator[str]) -> str:
    """A text of the form that is asked for."""
    schema = wanted.get("schema", {"type": "object"})
    try:
        text = json.dumps(sample(schema, words), ensure_ascii=False)
    except Unknown:
        text = ""
    if structured.wrong(wanted, text):
        raise PermanentEngineError("the mock engine finds no value that fits this schema")
    return text


def _reason(wanted: int, request: EngineRequest) -> FinishReason:
    return "length" if wanted > request.max_tokens else "stop"


def _reasons(exc: ValidationError) -> str:
    listed = exc.errors(include_input=False, include_url=False)
    return "; ".join(": ".join((".".join(map(str, error["loc"])), error["msg"])) for error in listed)


def _fail(plan: MockPlan) -> NoReturn:
    if plan.failure == "permanent":
        raise PermanentEngineError("the mock engine shows a permanent failure")
    if plan.failure == "raises":
        raise RuntimeError("the mock engine shows a bug")
    if plan.failure == "dies_midway":
        os.kill(os.getpid(), signal.SIGKILL)
    if plan.failure == "exits":
        raise SystemExit(1)
    if plan.failure == "hangs":
        give_up = time.monotonic() + HANG_S
        while time.monotonic() < give_up:
            time.sleep(HANG_STEP_S)
    if plan.retry_after_s is not None:
        raise TransientEngineError.after("the mock engine asks to wait", plan.retry_after_s)
    raise TransientEngineError("the mock engine shows a transient failure")
