"""`textgen usage`: the ledger, day by day."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import click

from textgen.cli.fields import json_option
from textgen.settings import get_settings

if TYPE_CHECKING:
    from textgen.store.ledger import Used

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

    Counted are tasks that ended, with the tokens of all their attempts. With TEXTGEN_URL set they are those
    of the owner of your key.
    """
    from rich.table import Table

    from textgen.cli import screen

    rows = _read(first and first.date(), last and last.date(), owner)
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


def _read(first: date | None, last: date | None, owner: str | None) -> list[Used]:
    url = get_settings().url
    if url and owner:
        raise click.UsageError("over HTTP only the usage of your key's owner can be had: leave --owner out")
    if url:
        from textgen.remote import RemoteClient

        with RemoteClient(url) as server:
            return server.usage(first, last)
    from textgen import client

    last = last or client.today()
    return client.usage(first or last - timedelta(days=DAYS - 1), last, owner)
