"""`textgen dead`: look at dead letters, submit them again, delete them."""

from __future__ import annotations

import click

from textgen.cli.fields import json_option
from textgen.cli.straight import StraightGroup


@click.group(cls=StraightGroup)
def dead() -> None:
    """Look at dead letters, submit them again, delete them.

    A dead letter is a message that was no task, or a task that failed in every attempt allowed.

    These commands go straight to broker and store, and refuse to with TEXTGEN_URL set; over HTTP there is
    /v1/dead-letters.
    """


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@json_option
def list_dead(limit: int, as_json: bool) -> None:
    """List the newest dead letters, without what they asked for."""
    from rich.table import Table

    from textgen import client
    from textgen.cli import screen

    letters = client.dead_letters(limit)
    if as_json:
        screen.write_json([_without_request(letter.as_dict()) for letter in letters])
        return
    table = Table("id", "since", "attempts", "queue", "reason", box=None)
    for letter in letters:
        table.add_row(letter.id, letter.at, str(len(letter.attempts)), letter.queue, letter.reason)
    screen.console().print(table)


@dead.command()
@click.argument("letter_id", metavar="ID")
@json_option
def show(letter_id: str, as_json: bool) -> None:
    """Show a dead letter with its attempts and what it asked for."""
    from textgen import client
    from textgen.cli import screen

    letter = client.dead_letter(letter_id).as_dict()
    if as_json:
        screen.write_json(letter)
    else:
        screen.console().print_json(data=letter)


@dead.command()
@click.argument("letter_id", metavar="ID")
@json_option
def replay(letter_id: str, as_json: bool) -> None:
    """Submit what a dead letter asked for as a new task, and print its id."""
    from textgen import client
    from textgen.cli import screen

    record = client.replay(letter_id)
    if as_json:
        screen.write_json(record.as_dict())
    else:
        click.echo(record.task_id)


@dead.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def purge(yes: bool, as_json: bool) -> None:
    """Delete all dead letters."""
    from textgen import client
    from textgen.cli import screen

    if not yes:
        click.confirm("Delete all dead letters?", abort=True, err=True)
    purged = client.purge_dead_letters()
    if as_json:
        screen.write_json({"purged": purged})
    else:
        click.echo(f"{purged} deleted")


def _without_request(letter: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in letter.items() if name != "request"}
