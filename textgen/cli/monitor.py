"""`textgen monitor`: tasks by status, queues, workers and the newest tasks, again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from textgen.cli.fields import json_option
from textgen.lifecycle import Record, Status

if TYPE_CHECKING:
    from rich.console import RenderableType

    from textgen.cli.connection import TaskClient
    from textgen.client import Overview
    from textgen.errors import Unavailable

    Look = tuple[Overview, list[Record]]

#: What --json shows of a task; nothing that a user or a model wrote.
TASK_FIELDS = (
    "task_id",
    "status",
    "engine",
    "model",
    "lane",
    "priority",
    "attempt",
    "created_at",
    "started_at",
    "finished_at",
)


@click.command()
@click.option("--once", is_flag=True, help="Show the state of now and end.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.2, max=3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Pause between two looks.",
)
@click.option(
    "--limit", type=click.IntRange(0, 1000), default=10, show_default=True, help="Newest tasks shown."
)
@click.option("--show-prompts", is_flag=True, help="Show the beginnings of prompts too.")
@json_option
def monitor(once: bool, interval: float, limit: int, show_prompts: bool, as_json: bool) -> None:
    """Watch tasks, queues and workers.

    Ctrl-C quits. With --json, each look is a line.
    """
    from textgen.cli.connection import connect

    looks = _looks(connect(), limit, None if once else interval)
    if as_json:
        _print_lines(looks, show_prompts)
    else:
        _print_tables(looks, show_prompts, once)


def _looks(client: TaskClient, limit: int, interval_s: float | None) -> Iterator[Look | Unavailable]:
    """Look at the system, once or again and again; only the first look raises what it meets."""
    from textgen.errors import Unavailable

    yield _look(client, limit)
    while interval_s is not None:
        time.sleep(interval_s)
        try:
            yield _look(client, limit)
        except Unavailable as exc:
            yield exc


def _look(client: TaskClient, limit: int) -> Look:
    return client.overview(), client.recent(limit) if limit else []


def _print_lines(looks: Iterator[Look | Unavailable], show_prompts: bool) -> None:
    from textgen.cli import screen

    for look in looks:
        if isinstance(look, Exception):
            raise look
        screen.write_json(_document(*look, show_prompts))


def _print_tables(looks: Iterator[Look | Unavailable], show_prompts: bool, once: bool) -> None:
    from rich.live import Live

    from textgen.cli import screen

    console = screen.console()
    views = (_view(look, show_prompts) for look in looks)
    if once or not console.is_terminal:
        for view in views:
            console.print(view)
        return
    with Live(next(views), console=console, auto_refresh=False, screen=True) as live:
        for view in views:
            live.update(view, refresh=True)


def _view(look: Look | Unavailable, show_prompts: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from textgen.cli import screen

    if isinstance(look, Exception):
        return Text(f"unavailable: {look}", style="red")
    overview, records = look
    parts: list[RenderableType] = [
        _counts("tasks", {name: overview.statuses.get(name, 0) for name in Status}),
        _counts("queues", overview.queues),
        _counts("janitor", overview.janitor),
        Text("workers  ", style="bold").append(", ".join(overview.workers) or "none", style="not bold"),
    ]
    parts += [
        Text(f"{'engine':<9}", style="bold").append(f"{one.name}  {one.words()}", style="not bold")
        for one in overview.engines
    ]
    if records:
        parts += [Text(), screen.records_table(records, show_prompts)]
    return Group(*parts)


def _counts(title: str, counts: Mapping[Any, int]) -> RenderableType:
    from rich.text import Text

    line = Text(f"{title:<9}", style="bold")
    for name, count in counts.items():
        line.append(f"{name} ", style="dim not bold").append(f"{count}   ", style="not bold")
    return line if counts else line.append("nothing", style="not bold")


def _document(overview: Overview, records: list[Record], show_prompts: bool) -> dict[str, Any]:
    from textgen.cli.screen import prompt_of

    tasks = []
    for record in records:
        shown = record.as_dict()
        task = {name: shown[name] for name in TASK_FIELDS}
        tasks.append({**task, "prompt": prompt_of(record)} if show_prompts else task)
    return {
        "statuses": overview.statuses,
        "queues": overview.queues,
        "workers": overview.workers,
        "janitor": overview.janitor,
        "engines": [one.as_dict() for one in overview.engines],
        "tasks": tasks,
    }
