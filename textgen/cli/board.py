"""How several generations are shown: a line of progress each and a summary, or JSON lines."""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from textgen.cli import screen
from textgen.cli.generations import Generations, Update
from textgen.errors import TextgenError
from textgen.lifecycle import Event, Record


class Lines:
    """Writes each outcome as a JSON line."""

    def __init__(self, run: Generations) -> None:
        self._run = run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def show(self, update: Update) -> None:
        """Write the outcome, if `update` is one."""
        if update.last and isinstance(update.what, Record):
            screen.write_json(update.what.as_dict())
        elif isinstance(update.what, TextgenError):
            error = {"type": type(update.what).__name__, "message": str(update.what)}
            record = self._run.records.get(update.index)
            task_id = record.task_id if record else None
            screen.write_json({"index": update.index, "task_id": task_id, "error": error})

    def summarize(self, seconds: float) -> None:
        """Write nothing: a summary is for people."""


class Board:
    """Shows on stderr those under way and those that ended, and on stdout a summary."""

    def __init__(self, run: Generations, prompts: list[str]) -> None:
        self._run = run
        self._prompts = prompts
        self._rows: dict[int, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[state]:<10}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=screen.console(stderr=True),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def show(self, update: Update) -> None:
        """Show one step of one of the generations."""
        index, what = update.index, update.what
        if update.last and not isinstance(what, Event):
            if index in self._rows:
                self._progress.remove_task(self._rows.pop(index))
            self._progress.console.print(self._line(index, what), soft_wrap=True)
        elif isinstance(what, Record):
            title = screen.one_line(self._prompts[index])
            self._rows[index] = self._progress.add_task(title, total=None, state=what.status.value)
        elif isinstance(what, Event) and what.type == "state":
            self._progress.update(self._rows[index], state=what.data["status"])

    def summarize(self, seconds: float) -> None:
        """Print a table of all outcomes, and what they come to."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=True)
        for name in ("#", "task", "status", "waited", "ran"):
            table.add_column(name, no_wrap=True)
        # what the others leave
        table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
        for index in sorted(self._run.outcomes):
            table.add_row(str(index + 1), *_cells(self._run.outcomes[index], self._run.records.get(index)))
        out = screen.console()
        out.print(table)
        out.print(_total(self._run, seconds), soft_wrap=True)

    def _line(self, index: int, outcome: Record | TextgenError) -> Text:
        title = screen.one_line(self._prompts[index])
        if isinstance(outcome, Record):
            line = screen.status_text(outcome.status)
            return line.append(f"  {title}").append(f"  {screen.ending(outcome)}", style="dim")
        return Text().append("no outcome", style="red").append(f"  {title}  {outcome}", style="dim")


def _cells(outcome: Record | TextgenError, known: Record | None) -> list[Any]:
    if isinstance(outcome, TextgenError):
        reason = Text(screen.one_line(str(outcome), 200), style="red")
        return [known.task_id if known else "", known.status.value if known else "", "", "", reason]
    started = outcome.started_at or outcome.finished_at
    return [
        outcome.task_id,
        screen.status_text(outcome.status),
        screen.duration(screen.seconds_between(outcome.created_at, started)),
        screen.duration(screen.seconds_between(outcome.started_at, outcome.finished_at)),
        Text(screen.one_line(outcome.error.message if outcome.error else outcome.result or "", 200)),
    ]


def _total(run: Generations, seconds: float) -> str:
    ended = [outcome for outcome in run.outcomes.values() if isinstance(outcome, Record)]
    counts = Counter(record.status.value for record in ended)
    counts["without outcome"] = len(run.outcomes) - len(ended)
    tokens = sum(record.usage.completion_tokens for record in ended if record.usage)
    shown = [f"{count} {name}" for name, count in counts.items() if count]
    return " · ".join([*shown, f"{tokens} tokens", screen.duration(seconds)])
