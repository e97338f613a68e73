"""`textgen keys`: make API keys, list them, replace and revoke them."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from textgen.caller import Limits
from textgen.cli.fields import json_option
from textgen.cli.straight import StraightGroup

if TYPE_CHECKING:
    from textgen.api_keys import ApiKey

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LIMITS = tuple(one.name for one in fields(Limits))


def _as_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Read a time span as `90d`, `12h`, `30m` or `45s`."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", value)
    if not found:
        raise click.BadParameter("must be a number and a unit: 90d, 12h, 30m, 45s", ctx, param)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _as_limits(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Limits:
    """Read limits, each as `name=number`."""
    limits: dict[str, Any] = {}
    for value in values:
        name, _, number = value.partition("=")
        is_money = name.startswith("usd")
        digits = r"[0-9]{1,15}(\.[0-9]{1,9})?" if is_money else r"[0-9]{1,15}"
        if name not in _LIMITS or not re.fullmatch(digits, number):
            reason = f"must be a name and a number, such as tasks=100; names: {', '.join(_LIMITS)}"
            raise click.BadParameter(reason, ctx, param)
        limits[name] = float(number) if is_money else int(number)
    return Limits(**limits)


@click.group(cls=StraightGroup)
def keys() -> None:
    """Make API keys, list them, replace and revoke them.

    These commands go straight to the store, and refuse to with TEXTGEN_URL set.
    """


@keys.command()
@click.option("--name", required=True, help="For people.")
@click.option("--owner", help="On whose behalf it acts; by default TEXTGEN_OWNER.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["generate", "read", "admin"]),
    default=("generate", "read"),
    show_default=True,
    help="What it may do; may be given again.",
)
@click.option(
    "--expires-in", callback=_as_duration, help="Its life, such as 90d; by default it does not expire."
)
@click.option(
    "--limit",
    "limits",
    metavar="NAME=NUMBER",
    multiple=True,
    callback=_as_limits,
    help="A limit of its own; may be given again.",
)
@json_option
def create(
    name: str,
    owner: str | None,
    scopes: tuple[str, ...],
    expires_in: timedelta | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Make a key and print it. It is not shown again."""
    from textgen import api_keys
    from textgen.settings import get_settings

    owner = get_settings().owner if owner is None else owner
    _show_new(*api_keys.create(name, owner, scopes, expires_in, limits), as_json)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap",
    callback=_as_duration,
    default="24h",
    show_default=True,
    help="How long the present key stays good.",
)
@json_option
def rotate(key_id: str, overlap: timedelta, as_json: bool) -> None:
    """Make a key that replaces another one, and print it; for a while both are good."""
    from textgen import api_keys

    _show_new(*api_keys.rotate(key_id, overlap), as_json)


@keys.command("list")
@click.option("--owner", help="Only keys of this owner.")
@json_option
def list_keys(owner: str | None, as_json: bool) -> None:
    """List the keys, oldest first; the keys themselves are not kept."""
    from rich.table import Table

    from textgen import api_keys
    from textgen.cli import screen

    shown = [key.as_dict() for key in api_keys.every(owner)]
    if as_json:
        screen.write_json(shown)
        return
    table = Table("id", "name", "owner", "scopes", "created", "expires", "limits", box=None)
    for key in shown:
        limits = " ".join(f"{name}={value}" for name, value in key["limits"].items())
        table.add_row(
            key["id"],
            key["name"],
            key["owner"],
            " ".join(key["scopes"]),
            key["created_at"],
            key["expires_at"] or "-",
            limits,
        )
    screen.console().print(table)


@keys.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Revoke a key at once. Tasks that it submitted go on."""
    from textgen import api_keys

    api_keys.revoke(key_id)
    click.echo(f"{key_id} revoked")


def _show_new(known: ApiKey, key: str, as_json: bool) -> None:
    from textgen.cli import screen

    if as_json:
        screen.write_json(known.as_dict() | {"key": key})
    else:
        click.echo(key)
        click.echo(f"id {known.id}; the key is not shown again", err=True)
