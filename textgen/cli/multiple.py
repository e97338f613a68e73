"""`textgen multiple`: several prompts at once, each with a progress line, and a summary."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textgen.cli import exits
from textgen.cli.fields import (
    decoded,
    json_option,
    read_stdin,
    request_fields,
    request_options,
    timeout_option,
)

if TYPE_CHECKING:
    from textgen.cli.generations import Generations

#: What is generated when no prompt is given.
DEFAULT_PROMPTS = (
    "Explain in one sentence what a message queue is.",
    "Write a haiku about a rainy morning.",
    "Name three uses of a paper clip.",
)


@click.command()
@click.argument("sources", nargs=-1, metavar="[FILE|PROMPT]...")
@click.option(
    "--parallel",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="Tasks under way at the same time.",
)
@request_options
@timeout_option
@json_option
def multiple(
    sources: tuple[str, ...],
    parallel: int,
    timeout: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Generate text for several prompts at once.

    An argument that names a file stands for its lines, `-` for those of stdin, any other for itself; with
    none, three prompts serve as an example. With --json, each final record is a line, in the order in which
    tasks end; {"index", "error"} stands where there is none. Ctrl-C and --timeout end the waiting, not the
    tasks that were submitted. The exit code is that of the worst outcome.
    """
    from textgen.cli.connection import connect
    from textgen.cli.generations import Generations

    prompts = _prompts(sources)
    run = Generations(connect(), [request_fields(prompt, **options) for prompt in prompts], parallel)
    _follow(run, prompts, timeout, as_json)
    raise click.exceptions.Exit(exits.code_of_all(list(run.outcomes.values())))


def _prompts(sources: tuple[str, ...]) -> list[str]:
    if not sources:
        return list(DEFAULT_PROMPTS)
    prompts = [prompt for source in sources for prompt in _lines(source)]
    if not prompts:
        raise click.UsageError("there is no prompt in what was given")
    return prompts


def _lines(source: str) -> list[str]:
    if source == "-":
        text = read_stdin()
    elif os.path.isfile(source):
        text = decoded(Path(source).read_bytes(), source)
    else:
        return [source]
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _follow(run: Generations, prompts: list[str], timeout_s: float | None, as_json: bool) -> None:
    """Show how all go until all are over, or time is up."""
    from textgen.cli.board import Board, Lines
    from textgen.errors import WaitTimeout

    started = time.monotonic()
    report = Lines(run) if as_json else Board(run, prompts)
    with report:
        try:
            for update in run.updates(timeout_s):
                report.show(update)
        except KeyboardInterrupt:
            run.stop()
            raise
        except WaitTimeout:
            for update in run.give_up():
                report.show(update)
    report.summarize(time.monotonic() - started)
