"""How fast the local engine generates, beside the bare runtime in the same process and run.

    python -m bench.local_engine [--rounds 3] [--tokens 96]

Both serve the same prompts through the same loaded model, in turns, so that what else the machine
does strikes both. Given are the best of the rounds: tokens per second of all streams together, and
the mean seconds to the first token.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from textgen.engines.base import EngineRequest
from textgen.engines.local import LocalEngine
from textgen.settings import Settings

#: How many requests run at once.
STREAMS = (1, 8)
#: What one request came to: tokens, and seconds to the first of them.
Outcome = tuple[int, float]


def ask(number: int, tokens: int) -> EngineRequest:
    turns = ({"role": "user", "content": f"Tell a long story with {number + 3} animals in it."},)
    return EngineRequest("bench", 1, turns, max_tokens=tokens, seed=number)


def ours(engine: LocalEngine, request: EngineRequest) -> Outcome:
    began, first, tokens = time.monotonic(), 0.0, 0
    for piece in engine.generate(request):
        tokens += getattr(piece, "tokens", 0)
        first = first or (time.monotonic() - began if tokens else 0.0)
    return tokens, first


def raw(engine: LocalEngine, request: EngineRequest) -> Outcome:
    """The runtime's own call, with nothing of ours around it."""
    began, firsts, usages = time.monotonic(), [], []

    def take(piece: dict[str, Any]) -> bool:
        if any(choice.get("delta", {}).get("content") for choice in piece.get("choices", ())):
            firsts.append(time.monotonic() - began)
        if piece.get("usage"):
            usages.append(piece["usage"]["completion_tokens"])
        return False

    body = {"messages": list(request.messages), "max_tokens": request.max_tokens, "seed": request.seed}
    body |= {"stream": True, "stream_options": {"include_usage": True}, "cache_prompt": False}
    engine._server.handle_chat_completions(body, take)
    return usages[-1], firsts[0]


def measure(
    call: Callable[[LocalEngine, EngineRequest], Outcome], engine: LocalEngine, streams: int, tokens: int
) -> tuple[float, float]:
    """Tokens per second of all streams, and mean seconds to the first token."""
    requests = [ask(number, tokens) for number in range(streams)]
    began = time.monotonic()
    with ThreadPoolExecutor(streams) as pool:
        outcomes = list(pool.map(lambda request: call(engine, request), requests))
    took = time.monotonic() - began
    return sum(done for done, _ in outcomes) / took, sum(first for _, first in outcomes) / streams


def main() -> None:
    options = argparse.ArgumentParser(description="Tokens per second of the local engine.")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--tokens", type=int, default=96)
    chosen = options.parse_args()
    engine = LocalEngine(Settings(concurrency=max(STREAMS)))
    began = time.monotonic()
    engine.setup()
    print(f"{engine.model}, loaded in {time.monotonic() - began:.2f} s, best of {chosen.rounds}")
    measure(raw, engine, 1, 16)
    print(f"{'streams':>7}  {'':4}  {'tokens/s':>8}  {'first token':>11}")
    for streams in STREAMS:
        found: dict[str, list[tuple[float, float]]] = {"raw": [], "ours": []}
        for _ in range(chosen.rounds):
            for name, call in (("raw", raw), ("ours", ours)):
                found[name].append(measure(call, engine, streams, chosen.tokens))
        for name, rounds in found.items():
            speed, first = max(one for one, _ in rounds), min(other for _, other in rounds)
            print(f"{streams:>7}  {name:4}  {speed:>8.1f}  {first:>9.3f} s")


if __name__ == "__main__":
    main()
