"""One generation on the terminal: states on stderr, the text on stdout as it comes."""

from __future__ import annotations

import sys

from textgen.cli import screen
from textgen.cli.generations import Update
from textgen.lifecycle import Event, Record, Status


class Transcript:
    """Shows the events of one task.

    Args:
        stream: Write the text as it comes; otherwise at the end.
    """

    def __init__(self, stream: bool = True) -> None:
        self._stream = stream
        self._notes = screen.console(stderr=True)
        self._is_terminal = sys.stdout.isatty()
        #: Whether text has been written, and whether the cursor is within a line of it.
        self._wrote = self._inside_line = False

    def show(self, update: Update) -> None:
        """Show one step of the generation."""
        what = update.what
        if isinstance(what, Event):
            self._show_event(what)
        elif isinstance(what, Record) and update.last:
            self._show_end(what)
        elif isinstance(what, Record):
            self._note(what.status, what.task_id)

    def break_off(self) -> None:
        """End the line, where the rest will not come."""
        if self._inside_line:
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._inside_line = False

    def _show_event(self, event: Event) -> None:
        """Show one event; the last one is left to the final record, which says more."""
        if event.type == "chunk" and self._stream:
            self._write(event.data["text"])
        elif event.type == "reset":
            self.break_off()
            self._note(Status.PENDING, "the text so far is void; it is generated anew")
            self._wrote = False
        elif event.type == "state" and event.data["status"] == Status.PROCESSING:
            self._note(Status.PROCESSING, f"attempt {event.attempt}")
        elif event.type == "state" and event.data["status"] == Status.PENDING and event.attempt:
            self._note(Status.PENDING, f"waiting for attempt {event.attempt + 1}")

    def _show_end(self, record: Record) -> None:
        if record.result and not self._wrote:
            self._write(record.result)
        self.break_off()
        self._note(record.status, screen.ending(record))

    def _note(self, status: Status, text: str) -> None:
        self._notes.print(screen.status_text(status).append(f"  {text}", style="dim"), soft_wrap=True)

    def _write(self, text: str) -> None:
        sys.stdout.write(screen.visible(text) if self._is_terminal else text)
        sys.stdout.flush()
        self._wrote = True
        self._inside_line = not text.endswith("\n")
