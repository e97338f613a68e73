"""The client: the functions of `textgen.direct`, and two classes for scripts.

HTTP, CLI and Python code all call these. The classes go straight to broker and store too, unless they
are given the URL of a server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Self

from textgen import direct
from textgen.direct import (
    Overview,
    cancel,
    clear_cache,
    dead_letter,
    dead_letters,
    delete,
    engines,
    get,
    health,
    is_position,
    list_page,
    outlooks,
    overview,
    purge_dead_letters,
    recent,
    replay,
    stream,
    submit,
    today,
    usage,
    wait,
    webhook_deliveries,
)
from textgen.engine_states import engine_states
from textgen.errors import InvalidRequest, WaitTimeout
from textgen.lifecycle import Event, Status
from textgen.requests import parse_request
from textgen.selection import Selection, walk
from textgen.store.following import Following
from textgen.webhooks.calls import rotate_webhook_secret, try_webhook, webhook_secret

__all__ = [
    "Following",
    "Overview",
    "TextGenerationClient",
    "TextGenerationProducer",
    "cancel",
    "clear_cache",
    "dead_letter",
    "dead_letters",
    "delete",
    "engine_states",
    "engines",
    "get",
    "health",
    "is_position",
    "list_page",
    "outlooks",
    "overview",
    "purge_dead_letters",
    "recent",
    "replay",
    "rotate_webhook_secret",
    "stream",
    "submit",
    "today",
    "try_webhook",
    "usage",
    "wait",
    "webhook_deliveries",
    "webhook_secret",
]


class TextGenerationProducer:
    """Submits tasks and reads their records; a context manager.

    Args:
        url: Base URL of a textgen server; None goes straight to broker and store.
        api_key: The key that the server asks for; by default `TEXTGEN_API_KEY`.

    >>> with TextGenerationProducer() as producer:  # doctest: +SKIP
    ...     task_id = producer.create_task(prompt="Write a haiku.")
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self._way: Any = direct
        if url:
            from textgen.remote import RemoteClient

            self._way = RemoteClient(url, api_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create_task(
        self,
        prompt: str,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
        **request: Any,
    ) -> str:
        """Submit a prompt.

        Args:
            prompt: The prompt.
            metadata: Anything of your own, kept in the record.
            idempotency_key: New for each request: a call repeated with it leads to the same task.
            **request: Any other field of `GenerationRequest`.

        Returns:
            The task's id.

        Raises:
            InvalidRequest: With the fields that are wrong.
            LimitExceeded, QueueFull, BudgetExhausted: A limit is reached; nothing was queued.
            StoreUnavailable, BrokerUnavailable: Nothing was queued.
        """
        asked: Any = {"prompt": prompt, "metadata": metadata or {}, **request}
        if self._way is direct:  # a server knows itself what it takes, and may have other engines
            asked = parse_request(asked)
        return str(self._way.submit(asked, idempotency_key=idempotency_key).task_id)

    def get_task_status(self, task_id: str) -> dict[str, Any]:
        """The record of a task, as an object.

        Raises:
            UnknownTask: There is none with this id.
        """
        return self._way.get(task_id).as_dict()

    def delete(self, task_id: str) -> None:
        """Delete a task that has ended, with all that was kept of it.

        Raises:
            UnknownTask: There is none with this id.
            TaskUnfinished: It waits or runs.
        """
        self._way.delete(task_id)

    def clear_cache(self) -> int:
        """Delete your cached results, so that no text of before answers; returns how many there were."""
        return int(self._way.clear_cache())

    def close(self) -> None:
        """Close the connections to the server; those to broker and store are the process's own."""
        if self._way is not direct:
            self._way.close()


class TextGenerationClient(TextGenerationProducer):
    """Submits, waits, follows and shows; a context manager."""

    def wait(self, task_id: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until a task is terminal.

        Returns:
            Its record, COMPLETED or not.

        Raises:
            WaitTimeout: It was not terminal within `timeout_s` seconds; names the id and the last state.
            UnknownTask: There is none with this id, or its record vanished meanwhile.
            Unavailable: Store or server cannot be reached.
        """
        record = self._way.wait(task_id, timeout_s)
        if not record.status.is_terminal:
            raise WaitTimeout(f"task {task_id} is {record.status.value} after {timeout_s:.1f} s")
        return record.as_dict()

    def stream(self, task_id: str, after: str | None = None) -> Iterator[Event]:
        """Follow a task's events to its end.

        Args:
            task_id: Which task.
            after: Id of the event behind which to begin; None for the beginning.

        Yields:
            `state`, `chunk` and `reset` events (see `textgen.lifecycle.Event`) as they happen. After a
            `reset`, all text before it is void.

        Raises:
            InvalidRequest: `after` is not an event's id.
            UnknownTask: There is none with this id.
            Unavailable: Store or server cannot be reached; the task goes on.
        """
        told = self._way.stream(task_id, after)
        return (event for event in told if event is not None and event.type != "usage")

    def submit_and_wait(
        self, prompt: str, poll_interval: float = 1.0, max_attempts: int = 60, **request: Any
    ) -> dict[str, Any]:
        """Submit a prompt and wait until its task is terminal.

        Args:
            prompt: The prompt.
            poll_interval: With `max_attempts`: seconds × attempts is how long to wait. The answer
                comes as soon as the task is terminal, whatever the interval.
            max_attempts: See `poll_interval`.
            **request: `metadata` and any other field of `GenerationRequest`.

        Returns:
            The record of the terminal task, COMPLETED or not.

        Raises:
            WaitTimeout: It was not terminal in time; names the id and the last state.
            UnknownTask: Its record vanished meanwhile.
        """
        task_id = self.create_task(prompt, **request)
        return self.wait(task_id, poll_interval * max_attempts)

    def list(
        self,
        status: str | None = None,
        engine: str | None = None,
        created_after: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Your tasks, newest first; read page by page as you go through them.

        Args:
            status: `PENDING`, `PROCESSING`, `COMPLETED`, `FAILED` or `CANCELLED`.
            engine: The engine that was asked for, or that wrote the text.
            created_after: Submitted after this; aware.
            metadata: Key → value as text; only keys that `TEXTGEN_INDEXED_METADATA` names.
            limit: How many at the most.

        Raises:
            InvalidRequest: One of these is not as it must be.
            Unavailable: Store or server cannot be reached.
        """
        wanted = _selection(status, engine, created_after, metadata)
        found = walk(lambda size, cursor: self._way.list_page(wanted, size, cursor), limit)
        return (record.as_dict() for record in found)

    def display_result(self, result: dict[str, Any]) -> None:
        """Print a record for people: its state, its text or its error, and what it took."""
        from rich.console import Console

        console = Console()
        console.print(f"[bold]{result['task_id']}[/bold]  {result['status']}", highlight=False)
        if result.get("error"):
            console.print(f"{result['error']['type']}: {result['error']['message']}", markup=False)
        if result.get("result"):
            console.print(result["result"], markup=False, highlight=False)
        if result.get("usage"):
            console.print(
                f"{result['usage']['completion_tokens']} tokens by {result['engine']}", markup=False
            )


def _selection(
    status: str | None,
    engine: str | None,
    created_after: datetime | None,
    metadata: Mapping[str, str] | None,
) -> Selection:
    if status is not None and status not in tuple(Status):
        raise InvalidRequest.of({"field": "status", "reason": f"must be one of {', '.join(Status)}"})
    if created_after is not None and created_after.tzinfo is None:
        raise InvalidRequest.of({"field": "created_after", "reason": "must have a time zone"})
    return Selection(Status(status) if status else None, engine, created_after, metadata or {})
