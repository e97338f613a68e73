"""`textgen status`, `cancel`, `delete` and `list`: what there is to say about tasks that exist."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from textgen.cli.fields import json_option
from textgen.lifecycle import Record, Status


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


@click.command()
@click.argument("task_id", metavar="ID")
def delete(task_id: str) -> None:
    """Delete a task that has ended.

    Nothing of it can be read any more. One that waits or runs stays (exit code 1): cancel it first.
    """
    from textgen.cli.connection import connect

    connect().delete(task_id)


@click.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@click.option(
    "--status",
    type=click.Choice([each.value for each in Status], case_sensitive=False),
    help="Only those in this status.",
)
@click.option("--engine", help="Only those that asked for this engine, or that it wrote.")
@click.option(
    "--created-after",
    type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z")),
    help="Only those submitted after this; in UTC where it names no zone.",
)
@click.option(
    "--metadata",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only those with this in their metadata; the server's TEXTGEN_INDEXED_METADATA names the keys.",
)
@json_option
def list_tasks(
    limit: int,
    status: str | None,
    engine: str | None,
    created_after: datetime | None,
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """List your tasks.

    Newest first. With --json, the records are printed as one array.
    """
    from textgen.cli import screen
    from textgen.cli.connection import connect
    from textgen.selection import Selection, walk

    if created_after and created_after.tzinfo is None:
        created_after = created_after.replace(tzinfo=UTC)
    wanted = Selection(Status(status) if status else None, engine, created_after, _metadata(pairs))
    client = connect()
    records = list(walk(lambda size, cursor: client.list_page(wanted, size, cursor), limit))
    if as_json:
        screen.write_json([record.as_dict() for record in records])
    else:
        screen.console().print(screen.records_table(records, show_prompts=True))


def _metadata(pairs: tuple[str, ...]) -> dict[str, str]:
    parted = [pair.partition("=") for pair in pairs]
    if not all(key and sign for key, sign, _ in parted):
        raise click.UsageError("--metadata takes KEY=VALUE")
    return {key: text for key, _, text in parted}


def _show(record: Record, as_json: bool) -> None:
    from textgen.cli import screen

    if as_json:
        screen.write_json(record.as_dict())
    else:
        screen.console().print(screen.record_table(record))
