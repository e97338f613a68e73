"""`textgen interactive`: one prompt after the other. Ctrl-C ends a generation, Ctrl-D the command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from textgen.cli.fields import json_option, request_fields, request_options

if TYPE_CHECKING:
    from prompt_toolkit.history import History

    from textgen.cli.connection import TaskClient
    from textgen.cli.transcript import Transcript
    from textgen.lifecycle import Record


@click.command()
@request_options
@json_option
def interactive(as_json: bool, **options: Any) -> None:
    """Generate text for one prompt after the other.

    Ctrl-C cancels the generation that runs, Ctrl-D quits. Earlier prompts are kept in a history file and
    come back with the arrow keys. Where stdin is no terminal, each of its lines is a prompt. With --json,
    each final record is a line.
    """
    from textgen.cli import screen
    from textgen.cli.connection import connect
    from textgen.cli.root import error_line
    from textgen.cli.transcript import Transcript
    from textgen.errors import ConfigurationError, TextgenError

    client = connect()
    for prompt in _typed(as_json) if sys.stdin.isatty() else _piped():
        transcript = None if as_json else Transcript()
        try:
            record = _generate(client, request_fields(prompt, **options), transcript)
        except ConfigurationError:
            raise
        except TextgenError as exc:
            click.echo(error_line(exc), err=True)
            continue
        if as_json:
            screen.write_json(record.as_dict())


def _piped() -> Iterator[str]:
    for line in sys.stdin:
        if line.strip():
            yield line.rstrip("\r\n")


def _typed(as_json: bool) -> Iterator[str]:
    """Prompts as they are typed, up to Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    # what is typed is echoed where it does not mix with the output
    output = create_output(stdout=sys.stderr if as_json else None, always_prefer_tty=True)
    session: PromptSession[str] = PromptSession(history=_history(), output=output)
    click.echo("Ctrl-C cancels a generation, Ctrl-D quits.", err=True)
    while True:
        try:
            text = session.prompt("> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if text.strip():
            yield text


def _history() -> History:
    """The prompts typed before, readable by this user alone; forgotten where they cannot be kept."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    from textgen.address import state_home

    path = state_home() / "history"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)


def _generate(client: TaskClient, fields: dict[str, Any], transcript: Transcript | None) -> Record:
    """Run one generation; Ctrl-C cancels it."""
    from textgen.cli.generations import Generations
    from textgen.errors import TextgenError

    run = Generations(client, [fields])
    with _on_interrupt(run.cancel):
        for update in run.updates():
            if isinstance(update.what, TextgenError):
                if transcript:
                    transcript.break_off()
                raise update.what
            if transcript:
                transcript.show(update)
    return run.records[0]


@contextmanager
def _on_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C call `action` instead of raising KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, lambda signum, frame: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
