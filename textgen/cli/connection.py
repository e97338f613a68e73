"""What the commands talk to: a server where `TEXTGEN_URL` is set, broker and store otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from textgen.lifecycle import Event, Record
from textgen.settings import get_settings

if TYPE_CHECKING:
    from textgen.client import Overview
    from textgen.selection import Page, Selection


class TaskClient(Protocol):
    """The few calls that the commands make; they raise as those of `textgen.client` do."""

    def submit(self, request: Mapping[str, Any], /, *, idempotency_key: str | None = None) -> Record:
        """Validate and submit a request, given as its fields."""

    def get(self, task_id: str) -> Record:
        """Read a task."""

    def stream(self, task_id: str) -> Iterator[Event | None]:
        """Follow a task to its end; None is a sign of life."""

    def cancel(self, task_id: str) -> Record:
        """Cancel a task."""

    def recent(self, limit: int = 50) -> list[Record]:
        """Read the newest tasks, newest first."""

    def list_page(self, selection: Selection, limit: int, cursor: str | None) -> Page:
        """Read a page of your own tasks, newest first."""

    def delete(self, task_id: str) -> None:
        """Delete a task that has ended."""

    def clear_cache(self) -> int:
        """Delete your cached results."""

    def overview(self) -> Overview:
        """Count tasks, messages and workers."""


def connect() -> TaskClient:
    """Make the client that the settings ask for; nothing is connected before its first call.

    Raises:
        ConfigurationError: A setting is unusable.
    """
    settings = get_settings()
    if settings.url:
        from textgen.remote import RemoteClient

        return RemoteClient(settings.url)
    from textgen.cli.direct import DirectClient

    return DirectClient()
