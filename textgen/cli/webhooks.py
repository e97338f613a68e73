"""`textgen webhooks`: test an address, show or rotate the secret, look at a task's deliveries."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus

import click

from textgen.caller import Caller
from textgen.cli import exits
from textgen.cli.fields import json_option
from textgen.cli.straight import StraightGroup


@click.group(cls=StraightGroup)
def webhooks() -> None:
    """Test an address, show or rotate the secret that signs, look at deliveries.

    These commands go straight to the store, and refuse to with TEXTGEN_URL set; /docs has them over HTTP.
    """


@webhooks.command("test")
@click.argument("url")
@json_option
def test_address(url: str, as_json: bool) -> None:
    """Send a signed `webhook.test` to URL, once (exit code 1: not taken)."""
    from textgen import client
    from textgen.cli import screen

    answer = client.try_webhook(url)
    if as_json:
        screen.write_json({"delivered": answer.is_success, **asdict(answer)})
    else:
        what = "not taken" if answer.reason == "status" else answer.reason or "delivered"
        status = f" (status {answer.status_code})" if answer.status_code else ""
        click.echo(f"{what}{status}, {answer.duration_ms} ms")
        if answer.status_code == HTTPStatus.GONE:
            click.echo("A delivery that is answered so ends all that is due to the address, for a week.")
    if not answer.is_success:
        raise click.exceptions.Exit(exits.FAILED)


@webhooks.command()
@click.argument("task_id", metavar="ID")
@json_option
def deliveries(task_id: str, as_json: bool) -> None:
    """Show the tries of a task's webhook deliveries, oldest first."""
    from rich.table import Table

    from textgen import client
    from textgen.cli import screen

    tries = client.webhook_deliveries(task_id)
    if as_json:
        screen.write_json(tries)
        return
    table = Table("at", "event", "try", "outcome", "status", "reason", "next", box=None)
    for one in tries:
        status = str(one["status_code"] or "")
        cells = (one["at"], one["type"], str(one["number"]), one["outcome"], status, one["reason"])
        table.add_row(*cells, one["next_at"] or "")
    screen.console().print(table)


@webhooks.group()
def secret() -> None:
    """Show or rotate the secret that webhooks are signed with."""


_key_id = click.option("--key", "key_id", metavar="ID", help="Of which API key; by default of work without.")


@secret.command("show-once")
@_key_id
def show_once(key_id: str | None) -> None:
    """Print the secret, the first time that anybody asks for it."""
    from textgen import client

    click.echo(client.webhook_secret(_caller(key_id)))


@secret.command()
@_key_id
@click.option(
    "--overlap-s",
    type=float,
    default=86_400,
    show_default=True,
    help="Seconds for which the present secret signs too.",
)
def rotate(key_id: str | None, overlap_s: float) -> None:
    """Make a new secret and print it."""
    from textgen import client

    click.echo(client.rotate_webhook_secret(_caller(key_id), overlap_s))


def _caller(key_id: str | None) -> Caller | None:
    from textgen import api_keys

    return api_keys.get(key_id).caller if key_id else None
