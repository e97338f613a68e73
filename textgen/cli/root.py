"""The command group: finds commands when they are called, and turns errors into exit codes.

A command's module is imported when that command runs: `textgen --help` loads none of them.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from textgen import __version__
from textgen.cli import exits
from textgen.errors import BrokerUnavailable, StoreForbidden, StoreUnavailable, TextgenError, Unavailable

#: Command → where it is, and its line in `textgen --help`.
COMMANDS: dict[str, tuple[str, str]] = {
    "single": ("textgen.cli.single:single", "Generate text for one prompt."),
    "multiple": ("textgen.cli.multiple:multiple", "Generate text for several prompts at once."),
    "interactive": ("textgen.cli.interactive:interactive", "Generate text for one prompt after the other."),
    "status": ("textgen.cli.tasks:status", "Show a task."),
    "cancel": ("textgen.cli.tasks:cancel", "Cancel a task."),
    "delete": ("textgen.cli.tasks:delete", "Delete a task that has ended."),
    "list": ("textgen.cli.tasks:list_tasks", "List your tasks."),
    "usage": ("textgen.cli.usage:usage", "Show what was used, day by day."),
    "cache": ("textgen.cli.cache:cache", "Delete cached results."),
    "engines": (
        "textgen.cli.engines:engines",
        "List the engines: models, prices, limits, and what keeps each from working.",
    ),
    "check": (
        "textgen.cli.check:check",
        "Look whether settings, broker, store and engines are fit for work.",
    ),
    "keys": ("textgen.cli.keys:keys", "Make API keys, list them, replace and revoke them."),
    "dead": ("textgen.cli.dead:dead", "Look at dead letters, submit them again, delete them."),
    "webhooks": (
        "textgen.cli.webhooks:webhooks",
        "Test an address, show or rotate the secret that signs, look at deliveries.",
    ),
    "monitor": ("textgen.cli.monitor:monitor", "Watch tasks, queues and workers."),
    "up": (
        "textgen.stack_cli:up",
        "Start broker, store, worker, web app and Flower on this machine, and keep them running.",
    ),
    "down": ("textgen.stack_cli:down", "Stop what `textgen up` started, and wait until it has stopped."),
    "ps": ("textgen.stack_cli:ps", "Show what `textgen up` runs."),
    "fetch-model": ("textgen.cli.model:fetch_model", "Fetch the model of the local engine."),
}

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in exits.EXIT_CODES.items())


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        # for "did you mean": click looks at the names
        self.commands = {name: click.Command(name, short_help=line) for name, (_, line) in COMMANDS.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except TextgenError as exc:
            click.echo(error_line(exc), err=True)
            raise click.exceptions.Exit(exits.code_of(exc)) from exc
        except KeyboardInterrupt:
            raise click.exceptions.Exit(exits.INTERRUPTED) from None


def error_line(exc: TextgenError) -> str:
    """Say in one line what went wrong."""
    message = " ".join(str(exc).split()) or type(exc).__name__
    is_away = isinstance(exc, (BrokerUnavailable, StoreUnavailable)) and not isinstance(exc, StoreForbidden)
    if is_away and _is_nowhere():
        return f"Error: {message}; no stack runs here: start one by `make run` or `textgen up`"
    later = f" (try again in {exc.retry_after_s} s)" if isinstance(exc, Unavailable) else ""
    return f"Error: {message}{later}"


def _is_nowhere() -> bool:
    """Whether nothing says where broker and store are: no setting, and no stack of this user's that runs."""
    from textgen.settings import CONNECTION_FIELDS, get_settings

    return not get_settings().model_fields_set & CONNECTION_FIELDS


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="textgen")
def cli() -> None:
    """Generate text in the background: submit prompts, follow, list and cancel them.

    With TEXTGEN_URL set, commands go over HTTP to that server; otherwise straight to broker and store:
    those that the settings name, or those of your running `textgen up`. `check` and `engines` look at this
    machine either way; `monitor`, `dead`, `keys` and `webhooks` do not go over HTTP.
    """


def main() -> None:
    """Run the `textgen` command (the console script)."""
    for stream in (sys.stdout, sys.stderr):
        # what the terminal's encoding lacks shows as a question mark instead of ending the command
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    cli(prog_name="textgen")
