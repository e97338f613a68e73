"""`textgen engines`: which there are, what keeps each from working, what each has and costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from textgen.cli import exits
from textgen.cli.fields import json_option

if TYPE_CHECKING:
    from textgen.catalogue import Entry

#: Models that a row names at the most; JSON has them all.
SHOWN = 5


@click.command()
@click.option("--check", is_flag=True, help="Set each up that can be, and ask its provider.")
@json_option
def engines(check: bool, as_json: bool) -> None:
    """List the engines: models, prices, limits, and what keeps each from working.

    Looks at this machine and its settings, also with TEXTGEN_URL set: a worker elsewhere may have others, and
    a server tells its own by GET /v1/engines. With --check the exit code is 1 if the default engine cannot
    work.
    """
    from rich.table import Table

    from textgen import catalogue
    from textgen.cli import screen
    from textgen.settings import get_settings

    found = catalogue.entries(get_settings(), is_asked=check)
    if as_json:
        screen.write_json([entry.as_dict() | {"why": entry.why} for entry in found])
    else:
        table = Table("engine", "ready", "models", "$ per million (in / out)", "limits", "", box=None)
        for entry in found:
            table.add_row(*_row(entry))
        screen.console().print(table)
    if check and not any(entry.is_default and not entry.why for entry in found):
        raise click.exceptions.Exit(exits.FAILED)


def _row(entry: Entry) -> tuple[str, ...]:
    models = [entry.model] if entry.model else []
    models += [model for model in entry.models if model != entry.model]
    more = [f"and {len(models) - SHOWN} more"] if len(models) > SHOWN else []
    return (
        entry.name + (" (default)" if entry.is_default else ""),
        "no" if entry.why else "yes",
        "\n".join(models[:SHOWN] + more),
        "\n".join(f"{model}: {price.prompt:g} / {price.completion:g}" for model, price in entry.prices),
        ", ".join(f"{name} {value}" for name, value in (entry.limits or {}).items()),
        entry.why or entry.doubt,
    )
