"""The client: the functions of `textgen.direct`, and two classes for scripts.

HTTP, CLI and Python code all call these. The classes go straight to broker and store too, unless they
are given the URL of a server.
"""

from __future__ import annotations

import time
from typing import Any, Self

from textgen import direct
from textgen.direct import (
    Overview,
    cancel,
    dead_letter,
    dead_letters,
    get,
    health,
    overview,
    purge_dead_letters,
    recent,
    replay,
    stream,
    submit,
    wait,
    webhook_deliveries,
)
from textgen.errors import WaitTimeout
from textgen.requests import parse_request
from textgen.webhooks.calls import rotate_webhook_secret, try_webhook, webhook_secret

__all__ = [
    "Overview",
    "TextGenerationClient",
    "TextGenerationProducer",
    "cancel",
    "dead_letter",
    "dead_letters",
    "get",
    "health",
    "overview",
    "purge_dead_letters",
    "recent",
    "replay",
    "rotate_webhook_secret",
    "stream",
    "submit",
    "try_webhook",
    "wait",
    "webhook_deliveries",
    "webhook_secret",
]


class TextGenerationProducer:
    """Submits tasks and reads their records; a context manager.

    Args:
        url: Base URL of a textgen server; None goes straight to broker and store.

    >>> with TextGenerationProducer() as producer:  # doctest: +SKIP
    ...     task_id = producer.create_task(prompt="Write a haiku.")
    """

    def __init__(self, url: str | None = None) -> None:
        self._way: Any = direct
        if url:
            from textgen.remote import RemoteClient

            self._way = RemoteClient(url)

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
            StoreUnavailable, BrokerUnavailable: Nothing was queued.
        """
        asked = parse_request({"prompt": prompt, "metadata": metadata or {}, **request})
        return str(self._way.submit(asked, idempotency_key=idempotency_key).task_id)

    def get_task_status(self, task_id: str) -> dict[str, Any]:
        """The record of a task, as an object.

        Raises:
            UnknownTask: There is none with this id.
        """
        return self._way.get(task_id).as_dict()

    def close(self) -> None:
        """Close the connections to the server; those to broker and store are the process's own."""
        if self._way is not direct:
            self._way.close()


class TextGenerationClient(TextGenerationProducer):
    """Submits, waits and shows; a context manager."""

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
        started = time.monotonic()
        record = self._way.wait(task_id, poll_interval * max_attempts)
        if not record.status.is_terminal:
            waited = time.monotonic() - started
            raise WaitTimeout(f"task {task_id} is {record.status.value} after {waited:.1f} s")
        return record.as_dict()

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
