"""`textgen single`: one prompt, followed to its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from textgen.cli import exits
from textgen.cli.fields import json_option, read_stdin, request_fields, request_options, timeout_option

if TYPE_CHECKING:
    from textgen.lifecycle import Record


@click.command()
@click.argument("prompt", required=False)
@request_options
@timeout_option
@click.option(
    "--idempotency-key", metavar="KEY", help="The same prompt given again with it leads to the same task."
)
@click.option("--no-stream", is_flag=True, help="Print the text when it is complete.")
@json_option
def single(
    prompt: str | None,
    timeout: float | None,
    idempotency_key: str | None,
    no_stream: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Generate text for one prompt.

    The text goes to stdout as it comes, states to stderr. PROMPT is read from stdin where it is `-`, or
    left out with something piped in. With --json, the final record is printed. Ctrl-C and --timeout end
    the waiting, not the task.
    """
    fields = request_fields(_prompt(prompt), **options)
    code = _follow(fields, timeout, idempotency_key, stream=not no_stream, as_json=as_json)
    raise click.exceptions.Exit(code)


def _prompt(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        raise click.UsageError("give a prompt, or pipe one in")
    return read_stdin().rstrip("\r\n") if given in (None, "-") else str(given)


def _follow(
    fields: dict[str, Any], timeout_s: float | None, key: str | None, stream: bool, as_json: bool
) -> int:
    """Run one generation and show it; returns the exit code."""
    from textgen.cli import screen
    from textgen.cli.connection import connect
    from textgen.cli.generations import Generations
    from textgen.cli.transcript import Transcript
    from textgen.errors import TextgenError, WaitTimeout

    transcript = None if as_json else Transcript(stream=stream)
    run = Generations(connect(), [fields], idempotency_key=key)
    try:
        for update in run.updates(timeout_s):
            if isinstance(update.what, TextgenError):
                raise update.what
            if transcript:
                transcript.show(update)
    except (TextgenError, KeyboardInterrupt) as exc:
        run.stop()
        if transcript:
            transcript.break_off()
        if 0 in run.records:
            _tell_what_goes_on(run.records[0], as_json and isinstance(exc, WaitTimeout))
        raise
    if as_json:
        screen.write_json(run.records[0].as_dict())
    return exits.code_of(run.records[0])


def _tell_what_goes_on(record: Record, as_json: bool) -> None:
    """Say which task was submitted though it is followed no longer."""
    from textgen.cli import screen

    if as_json:
        screen.write_json(record.as_dict())
    click.echo(f"Task {record.task_id} was last seen {record.status.value}.", err=True)
