"""`textgen check`: whether settings, broker, store and engines are fit for work, and what is wrong if not."""

from __future__ import annotations

from collections.abc import Iterator

import click

from textgen.cli import exits
from textgen.cli.fields import json_option


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Look whether settings, broker, store and engines are fit for work.

    It reads the settings, reaches broker and store, and asks the provider of each engine that is set up: all
    as this machine has it, also with TEXTGEN_URL set.

    What is wrong is said with the setting that mends it; the exit code is then 1. What only may be wrong is
    said as `warn`; with --json, on stderr. Engines that nobody has set up are passed over.
    """
    from textgen.cli import screen

    found = list(_findings())
    if as_json:
        screen.write_json({part: wrong or None for part, wrong, _ in found})
    for part, wrong, doubt in found:
        word, why = ("wrong", wrong) if wrong else ("warn", doubt) if doubt else ("ok", "")
        if not as_json or word == "warn":
            click.echo(f"{word:<6}{part}{f': {screen.visible(why)}' if why else ''}", err=as_json)
    if any(wrong for _, wrong, _ in found):
        raise click.exceptions.Exit(exits.FAILED)


def _findings() -> Iterator[tuple[str, str, str]]:
    """Each part that was looked at, what is wrong with it, and what may be."""
    from textgen import catalogue, routes
    from textgen.errors import ConfigurationError
    from textgen.settings import get_settings

    try:
        settings = get_settings()
        routes.names(settings)
        found = catalogue.entries(settings, is_asked=True)
    except ConfigurationError as exc:
        yield "settings", str(exc), ""
        return
    yield "settings", "", ""
    from textgen import client

    for part, wrong in client.health().items():
        if part != "worker":
            yield part, wrong or "", ""
    if not any(entry.is_default for entry in found):
        yield "default engine", _without_default(), ""
    for entry in found:
        if entry.is_wanted:
            yield f"engine {entry.name}", entry.why, entry.doubt


def _without_default() -> str:
    from textgen import routes
    from textgen.errors import ConfigurationError
    from textgen.settings import get_settings

    try:
        routes.default(get_settings())
    except ConfigurationError as exc:
        return str(exc)
    return "TEXTGEN_ENGINE means no engine"
