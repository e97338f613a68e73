"""`textgen engines`: which there are, and what keeps each from working."""

from __future__ import annotations

from typing import Any

import click

from textgen.cli import exits
from textgen.cli.fields import json_option


@click.command()
@click.option("--check", is_flag=True, help="Set each up that can be, and ask its provider.")
@json_option
def engines(check: bool, as_json: bool) -> None:
    """List the engines, and what keeps each from working.

    Looks at this machine and its settings: a worker elsewhere may have others. With --check the exit
    code is 1 if the default engine cannot work.
    """
    from rich.table import Table

    from textgen import engines as there
    from textgen import routes
    from textgen.cli import screen
    from textgen.errors import ConfigurationError
    from textgen.settings import get_settings

    try:
        default = {entry.engine for entry in routes.default(get_settings()).entries}
    except ConfigurationError:
        default = set()
    rows = [{"name": name, "default": name in default, **_state(name, check)} for name in there.names()]
    if as_json:
        screen.write_json(rows)
    else:
        table = Table("engine", "ready", "", box=None)
        for row in rows:
            table.add_row(
                row["name"] + (" (default)" if row["default"] else ""), _yes(row["ready"]), row["why"]
            )
        screen.console().print(table)
    if check and not any(row["default"] and row["ready"] for row in rows):
        raise click.exceptions.Exit(exits.FAILED)


def _state(name: str, check: bool) -> dict[str, Any]:
    from textgen import engines as there
    from textgen.errors import ConfigurationError, EngineError
    from textgen.settings import get_settings

    try:
        why = there.engine_class(name).missing(get_settings())
        if check and why is None:
            there.get_engine(name).check()
    except (ConfigurationError, EngineError) as exc:
        why = str(exc)
    return {"ready": why is None, "why": why or ""}


def _yes(ready: bool) -> str:
    return "yes" if ready else "no"
