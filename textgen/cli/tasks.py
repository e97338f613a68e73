"""`textgen status`, `cancel` and `list`: what there is to say about tasks that exist."""

from __future__ import annotations

import click

from textgen.cli.fields import json_option
from textgen.lifecycle import Record, Status

#: How many of the newest tasks `list --status` looks through.
SEARCHED = 1000


@click.command()
@click.argument("task_id", metavar="ID")
@json_option
def status(task_id: str, as_json: bool) -> None:
    """Show a task.

    The exit code says whether there is such a task (0) or not (3), not how it ended.
    """
    from textgen.cli.connection import connect

    _show(connect().get(task_id), as_json)


@click.command()
@click.argument("task_id", metavar="ID")
@json_option
def cancel(task_id: str, as_json: bool) -> None:
    """Cancel a task.

    What it has generated so far is kept. A task that is COMPLETED or FAILED stays so (exit code 1).
    """
    from textgen.cli.connection import connect

    _show(connect().cancel(task_id), as_json)


@click.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@click.option(
    "--status",
    "wanted",
    type=click.Choice([each.value for each in Status], case_sensitive=False),
    help=f"Only those in this status, of the newest {SEARCHED} tasks.",
)
@json_option
def list_tasks(limit: int, wanted: str | None, as_json: bool) -> None:
    """List the newest tasks.

    Newest first. With --json, the records are printed as one array.
    """
    from textgen.cli import screen
    from textgen.cli.connection import connect

    client = connect()
    if wanted is None:
        records = client.recent(limit)
    else:
        found = client.recent(max(limit, SEARCHED))
        records = [record for record in found if record.status == wanted][:limit]
    if as_json:
        screen.write_json([record.as_dict() for record in records])
    else:
        screen.console().print(screen.records_table(records, show_prompts=True))


def _show(record: Record, as_json: bool) -> None:
    from textgen.cli import screen

    if as_json:
        screen.write_json(record.as_dict())
    else:
        screen.console().print(screen.record_table(record))
