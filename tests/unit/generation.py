"""What the engines' tests share: the real model, requests, and how a whole answer is read."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import environment
from textgen import weights
from textgen.engines import Chunk, Engine, EngineRequest, Finish


@cache
def model_file() -> Path:
    """The local engine's model in the cache of whoever runs the tests, fetched if it is not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", environment.CACHE_HOME)
        return weights.fetch()


def request(prompt: str = "Write about the sea.", **fields: Any) -> EngineRequest:
    defaults: dict[str, Any] = {"task_id": "t", "attempt": 1, "max_tokens": 12, "seed": 7}
    return EngineRequest(messages=({"role": "user", "content": prompt},), **defaults | fields)


def mock_request(prompt: str = "Write about the sea.", attempt: int = 1, **mock: Any) -> EngineRequest:
    return request(prompt, attempt=attempt, max_tokens=100, metadata={"mock": mock})


@dataclass
class Answer:
    """All that an engine yielded for one request."""

    pieces: list[Chunk | Finish]

    @property
    def chunks(self) -> list[Chunk]:
        return [piece for piece in self.pieces if isinstance(piece, Chunk) and piece.text]

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def finish(self) -> Finish:
        assert isinstance(self.pieces[-1], Finish)
        return self.pieces[-1]


def pieces_of(engine: Engine, asked: EngineRequest) -> Generator[Chunk | Finish, None, None]:
    """What `engine` yields, as an iterator that can be closed."""
    yield from engine.generate(asked)


def begun(engine: Engine, asked: EngineRequest) -> Generator[Chunk | Finish, None, None]:
    """The iterator of a request whose first text has come."""
    pieces = pieces_of(engine, asked)
    while not getattr(next(pieces), "text", ""):
        pass
    return pieces


def answer(engine: Engine, asked: EngineRequest) -> Answer:
    return Answer(list(engine.generate(asked)))


def answers(engine: Engine, asked: Iterable[EngineRequest]) -> list[Answer]:
    """Generate for all of `asked` at once, each in a thread of its own."""
    listed = list(asked)
    with ThreadPoolExecutor(len(listed)) as pool:
        return list(pool.map(lambda one: answer(engine, one), listed))
