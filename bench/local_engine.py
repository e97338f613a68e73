"""How fast the local engine generates: the bare runtime, the engine, and the whole stack, in one run.

    python -m bench.local_engine [--rounds 3] [--tokens 96]

All serve the same prompts with the same model, in turns, so that what else the machine does strikes all.
The runtime and the engine share one loaded model in this process; the stack (`textgen up` on a folder of
its own) has its own, is given Celery tasks, and is followed until each ends. Given are the best of the
rounds: tokens per second of all streams together, and the mean seconds to the first token.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from bench.__main__ import stack
from textgen.engines.base import EngineRequest
from textgen.engines.local import LocalEngine
from textgen.settings import Settings

#: How many requests run at once.
STREAMS = (1, 8)
#: What one request came to: tokens, and seconds to the first of them.
Outcome = tuple[int, float]
#: Has one request served.
Call = Callable[[EngineRequest], Outcome]


def ask(number: int, tokens: int) -> EngineRequest:
    turns = ({"role": "user", "content": f"Tell a long story with {number + 3} animals in it."},)
    return EngineRequest("bench", 1, turns, max_tokens=tokens, seed=number)


def by_engine(engine: LocalEngine, request: EngineRequest) -> Outcome:
    began, first, tokens = time.monotonic(), 0.0, 0
    for piece in engine.generate(request):
        tokens += getattr(piece, "tokens", 0)
        first = first or (time.monotonic() - began if tokens else 0.0)
    return tokens, first


def by_runtime(engine: LocalEngine, request: EngineRequest) -> Outcome:
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


def by_stack(request: EngineRequest) -> Outcome:
    """As a user has it: a task is submitted, and followed to its end."""
    from textgen import client
    from textgen.tasks import generate

    began, first = time.monotonic(), 0.0
    asked = {"max_tokens": request.max_tokens, "seed": request.seed, "cache": False}
    task_id = generate.delay(request.messages[0]["content"], **asked).id
    for event in client.stream(task_id):
        if event and event.type == "chunk":
            first = first or time.monotonic() - began
    record = client.get(task_id)
    if record.usage is None or record.status != "COMPLETED":
        raise click.ClickException(f"a task ended {record.status}: {record.error}")
    return record.usage.completion_tokens, first


def measure(call: Call, streams: int, tokens: int) -> tuple[float, float]:
    """Tokens per second of all streams, and mean seconds to the first token."""
    requests = [ask(number, tokens) for number in range(streams)]
    began = time.monotonic()
    with ThreadPoolExecutor(streams) as pool:
        outcomes = list(pool.map(call, requests))
    took = time.monotonic() - began
    return sum(done for done, _ in outcomes) / took, sum(first for _, first in outcomes) / streams


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--tokens", default=96, show_default=True, help="Tokens of each text.")
def main(rounds: int, tokens: int) -> None:
    """Measure tokens per second of one stream and of eight."""
    engine = LocalEngine(Settings(concurrency=max(STREAMS)))
    began = time.monotonic()
    engine.setup()
    click.echo(f"{engine.model}, loaded in {time.monotonic() - began:.2f} s, best of {rounds}")
    calls: dict[str, Call] = {
        "runtime": lambda request: by_runtime(engine, request),
        "engine": lambda request: by_engine(engine, request),
        "stack": by_stack,
    }
    with stack("local", 1):
        for call in calls.values():
            measure(call, 1, 16)
        click.echo(f"{'streams':>7}  {'':7}  {'tokens/s':>8}  {'of runtime':>10}  {'first token':>11}")
        for streams in STREAMS:
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
            for _ in range(rounds):
                for name, call in calls.items():
                    found[name].append(measure(call, streams, tokens))
            ceiling = max(speed for speed, _ in found["runtime"])
            for name, results in found.items():
                speed, first = max(one for one, _ in results), min(other for _, other in results)
                click.echo(
                    f"{streams:>7}  {name:7}  {speed:>8.1f}  {speed / ceiling:>10.0%}  {first:>9.3f} s"
                )


if __name__ == "__main__":
    main()
