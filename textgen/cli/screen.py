"""How tasks look on a terminal and as JSON. What users or models wrote is never taken as mark-up."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from textgen.lifecycle import Record, Status

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

#: Status → how rich shows it.
STYLES = {
    Status.PENDING: "yellow",
    Status.PROCESSING: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "magenta",
}

#: Columns of what is piped somewhere, so that ids are not cut off.
PIPE_WIDTH = 200

#: Control characters (a terminal would obey them) → a visible mark. Tab and newline stay.
_CONTROLS = {code: "�" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"}
_CONTROLS[ord("\r")] = ""


def console(stderr: bool = False) -> Console:
    """A console that writes without any style where NO_COLOR is set."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))
    made = Console(stderr=stderr, highlight=False, markup=False, color_system=None if plain else "auto")
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PIPE_WIDTH
    return made


def write_json(document: Any) -> None:
    """Write one JSON document as one line on stdout."""
    click.echo(json.dumps(document))


def visible(text: str) -> str:
    """`text` with its control characters made harmless, for a terminal."""
    return text.translate(_CONTROLS)


def one_line(text: str, width: int = 60) -> str:
    """The beginning of `text` on one line of at most `width` characters."""
    line = visible(" ".join(text[: width * 4].split()))
    return line if len(line) <= width else f"{line[: width - 1]}…"


def status_text(status: Status) -> Text:
    """A status in its colour, as wide as the longest one."""
    from rich.text import Text

    return Text().append(f"{status.value:<10}", style=STYLES[status])


def prompt_of(record: Record) -> str:
    """The prompt, or the last message of the conversation."""
    if record.prompt is not None:
        return record.prompt
    return record.messages[-1]["content"] if record.messages else ""


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Seconds from one time of a record to another, or to now where the other is None."""
    if start is None:
        return None
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return max(0.0, (until - datetime.fromisoformat(start)).total_seconds())


def duration(seconds: float | None) -> str:
    """Seconds as people read them."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def ending(record: Record) -> str:
    """How a task ended, in one line: tokens, engine and time, or the error."""
    parts = []
    if record.error:
        parts.append(f"{record.error.type}: {record.error.message}")
    if record.usage:
        parts.append(f"{record.usage.completion_tokens} tokens")
    if record.engine:
        parts.append(record.engine)
    if record.finished_at:
        parts.append(duration(seconds_between(record.created_at, record.finished_at)))
    return visible(" · ".join(parts))


def record_table(record: Record) -> Table:
    """All of a record that is set, one field a row."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in record.as_dict().items():
        if name == "status":
            table.add_row(name, status_text(record.status))
        elif value not in (None, {}, []) and name != "v":
            table.add_row(name, Text(visible(_shown(value))))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: item for name, item in value.items() if item is not None}
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def records_table(records: list[Record], show_prompts: bool = False) -> Table:
    """Tasks, one a row."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=show_prompts)
    for name in ("task", "status", "engine", "attempt", "age", "took"):
        table.add_column(name, no_wrap=True)
    if show_prompts:
        # what the others leave
        table.add_column("prompt", no_wrap=True, overflow="ellipsis", ratio=1)
    for record in records:
        table.add_row(
            record.task_id,
            status_text(record.status),
            Text(visible(record.engine or record.params.get("engine") or "")),
            str(record.attempt),
            duration(seconds_between(record.created_at, None)),
            duration(seconds_between(record.created_at, record.finished_at)) if record.finished_at else "",
            *([Text(one_line(prompt_of(record)))] if show_prompts else []),
        )
    return table
