"""`textgen usage`: the ledger, day by day."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import click

from textgen.cli.fields import json_option

#: Days shown where none are named.
DAYS = 30
_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option("--from", "first", type=_DAY, help="First day, UTC; by default so that 30 are shown.")
@click.option("--to", "last", type=_DAY, help="Last day; by default today.")
@click.option("--owner", help="Whose keys; by default TEXTGEN_OWNER.")
@json_option
def usage(first: datetime | None, last: datetime | None, owner: str | None, as_json: bool) -> None:
    """Show what was used, day by day.

    Counted are tasks that ended, with the tokens of all their attempts. It is read straight from the
    store, also with TEXTGEN_URL set.
    """
    from rich.table import Table

    from textgen import client
    from textgen.cli import screen

    until = last.date() if last else client.today()
    since: date = first.date() if first else until - timedelta(days=DAYS - 1)
    rows = client.usage(since, until, owner)
    if as_json:
        screen.write_json([row.as_dict() for row in rows])
        return
    table = Table("day", "key", box=None)
    for name in ("requests", "prompt tokens", "completion tokens", "cost in $"):
        table.add_column(name, justify="right")
    for row in rows:
        shown = row.as_dict()
        cost = "" if shown["cost_usd"] is None else f"{shown['cost_usd']:.4f}"
        numbers = (row.requests, row.prompt_tokens, row.completion_tokens)
        table.add_row(row.day, row.key or "-", *map(str, numbers), cost)
    screen.console().print(table)
