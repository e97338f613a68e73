"""`textgen cache`: delete cached results."""

from __future__ import annotations

import click

from textgen.cli.fields import json_option


@click.group()
def cache() -> None:
    """Delete cached results.

    Those are the texts that answer the same request again.
    """


@cache.command()
@json_option
def clear(as_json: bool) -> None:
    """Delete your cached results; those of all owners where they are shared. Tasks keep their texts."""
    from textgen.cli import screen
    from textgen.cli.connection import connect

    cleared = connect().clear_cache()
    if as_json:
        screen.write_json({"cleared": cleared})
    else:
        click.echo(f"{cleared} deleted")
