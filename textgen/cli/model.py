"""`textgen fetch-model`: have the local engine's model in the cache."""

from __future__ import annotations

import click

from textgen.cli.fields import json_option


@click.command("fetch-model")
@json_option
def fetch_model(as_json: bool) -> None:
    """Fetch the model of the local engine.

    It is kept in $XDG_CACHE_HOME/textgen or ~/.cache/textgen, and fetched only where it is missing. Its path
    is printed on stdout, progress on stderr.
    """
    from textgen import weights
    from textgen.cli import screen

    path = weights.fetch(lambda line: click.echo(line, err=True))
    if as_json:
        screen.write_json({"path": str(path)})
    else:
        click.echo(path)
