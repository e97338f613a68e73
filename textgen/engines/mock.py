"""The mock engine: deterministic text from the prompt, with delays and failures on demand.

For tests and load: it costs nothing. What it does is set for all requests by `TEXTGEN_MOCK_DELAY_S`
and `TEXTGEN_MOCK_FAILURE`, and for one request by the object `mock` in its metadata (`MockPlan`).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from textgen.engines.base import Chunk, Engine, EngineRequest, Finish
from textgen.errors import PermanentEngineError, TransientEngineError
from textgen.lifecycle import Usage

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
#: `hangs`: no further piece for an hour. `dies_midway`: kills its process. `streams_forever`: never
#: ends.
Failure = Literal["transient", "permanent", "raises", "hangs", "dies_midway", "streams_forever"]


class MockPlan(BaseModel):
    """What the mock engine is to do for one request."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    delay_s: float | None = Field(None, ge=0, le=3600, description="Seconds before each token.")
    tokens: int | None = Field(None, ge=0, le=1_000_000, description="Tokens of the whole text.")
    failure: Failure | None = Field(None, description="Which failure to show.")
    times: int | None = Field(None, ge=0, description="Attempts that fail; all, or one that dies.")
    after: int = Field(0, ge=0, description="Tokens before the failure.")
    retry_after_s: float | None = Field(None, ge=0, description="What a transient failure asks for.")

    def fails(self, attempt: int) -> bool:
        """Whether attempt number `attempt` is one of those that fail."""
        times = 1 if self.times is None and self.failure == "dies_midway" else self.times
        return self.failure is not None and (times is None or attempt <= times)


class MockEngine(Engine):
    """Writes text that means nothing, the same for the same request."""

    name = "mock"

    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        plan = self._plan(request)
        prompt_tokens = sum(len(turn["content"].split()) for turn in request.messages)
        wanted = plan.tokens if plan.tokens is not None else TOKENS
        fails, text, count = plan.fails(request.attempt), "", 0
        for count, word in enumerate(self._words(request), start=1):
            if fails and count > plan.after:
                self._fail(plan)
            endless = fails and plan.failure == "streams_forever"
            if not endless and count > min(wanted, request.max_tokens):
                break
            self._pause(plan.delay_s if plan.delay_s is not None else self.settings.mock_delay_s)
            piece = word if count == 1 else f" {word}"
            text += piece
            cut = self._cut(text, len(piece), request.stop)
            if cut is not None:
                yield from (Chunk(piece[:cut], prompt_tokens=prompt_tokens),) if cut > 0 else ()
                yield Finish("stop", Usage(prompt_tokens, count), "mock")
                return
            yield Chunk(piece, prompt_tokens=prompt_tokens)
        reason: Literal["stop", "length"] = "length" if wanted > request.max_tokens else "stop"
        yield Finish(reason, Usage(prompt_tokens, count - 1), "mock")

    def _plan(self, request: EngineRequest) -> MockPlan:
        try:
            return MockPlan.model_validate(
                {"failure": self.settings.mock_failure or None, **request.metadata.get("mock", {})}
            )
        except ValidationError as exc:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
            raise PermanentEngineError(f"metadata.mock cannot be followed: {wrong}") from None
        except TypeError:
            raise PermanentEngineError("metadata.mock must be an object") from None

    def _words(self, request: EngineRequest) -> Iterator[str]:
        asked = repr((request.messages, request.seed, request.temperature, request.top_p))
        choice = random.Random(hashlib.sha256(asked.encode()).digest())  # noqa: S311 - repeatable by design
        return (choice.choice(WORDS) for _ in itertools.count())

    def _pause(self, seconds: float) -> None:
        if seconds:
            time.sleep(seconds)

    def _cut(self, text: str, new: int, stops: tuple[str, ...]) -> int | None:
        """Where in the newest piece a stop sequence ends the text; None if there is none."""
        found = [at for stop in stops if (at := text.find(stop)) >= 0]
        return max(0, min(found) - (len(text) - new)) if found else None

    def _fail(self, plan: MockPlan) -> None:
        if plan.failure == "transient":
            if plan.retry_after_s is None:
                raise TransientEngineError("the mock engine shows a transient failure")
            raise TransientEngineError.after("the mock engine asks to wait", plan.retry_after_s)
        if plan.failure == "permanent":
            raise PermanentEngineError("the mock engine shows a permanent failure")
        if plan.failure == "raises":
            raise RuntimeError("the mock engine shows a bug")
        if plan.failure == "dies_midway":
            os.kill(os.getpid(), signal.SIGKILL)
        if plan.failure == "hangs":
            give_up = time.monotonic() + HANG_S
            while time.monotonic() < give_up:
                time.sleep(HANG_STEP_S)
