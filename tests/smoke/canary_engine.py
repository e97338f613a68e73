"""An engine of another package, as the tests install one: its text and its errors hold secrets."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from textgen.engines.base import Chunk, Engine, EngineRequest, Finish
from textgen.errors import PermanentEngineError, TransientEngineError
from textgen.lifecycle import Usage

#: Pieces of a text that takes as long as it is let, and the seconds between two.
PIECES, PAUSE_S = 600, 0.1


class CanaryEngine(Engine):
    """Does what `metadata.act` says, with the text that the environment variable CANARY_RESULT holds."""

    name = "canary"

    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        act, text = request.metadata["act"], os.environ["CANARY_RESULT"]
        asked = ValueError(f"{request.messages} {request.stop} {os.environ['OPENAI_API_KEY']}")
        yield Chunk(f"{text} ")
        if act == "permanent":
            raise PermanentEngineError("the engine refuses") from asked
        if act == "raises":
            raise asked
        if act == "transient" and request.attempt == 1:
            raise TransientEngineError("the engine asks to come again") from asked
        if act == "dies" and request.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(PIECES if act == "slow" else 0):
            time.sleep(PAUSE_S)
            yield Chunk(f"{text} ")
        yield Finish("stop", Usage(1, 1), "canary-1")
