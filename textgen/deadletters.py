"""Dead letters: from `<queue>.dlx`, where they arrive, to `<queue>.dead`, where they stay.

In between the task's record is FAILED with the reason, and the index of dead letters gets an entry.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import structlog

from textgen import broker, messages, outcomes, queues
from textgen.errors import BrokerUnavailable, InvalidRequest, StoreBroken
from textgen.lifecycle import Failure, Record, Status, is_task_id, iso_time, new_task_id
from textgen.settings import Settings
from textgen.store import Store, graveyard, schedules
from textgen.store.answers import Control, Moved
from textgen.store.graveyard import DeadLetter
from textgen.store.log import read as read_log

if TYPE_CHECKING:
    from celery import Celery

log = structlog.get_logger(__name__)

#: Dead letters moved in one round.
AT_ONCE = 100


class DeadLetters:
    """Moves dead letters, over a connection of its own that it keeps.

    Args:
        app: Whose broker.
        settings: The settings.
        store: Where the records are.
    """

    def __init__(self, app: Celery, settings: Settings, store: Store) -> None:
        self.app = app
        self.settings = settings
        self.store = store
        self._queue: Any = None
        self._connection: Any = None

    def drain(self) -> None:
        """Move all dead letters that have arrived.

        Raises:
            BrokerUnavailable: The broker does not answer, or refused one; it stays where it is.
        """
        try:
            for _ in range(AT_ONCE):
                message = self._take()
                if message is None:
                    return
                self._bury(message)
                message.ack()
        except BrokerUnavailable:
            self._disconnect()
            raise
        except broker.ERRORS as exc:
            self._disconnect()
            raise BrokerUnavailable(f"dead letters cannot be read ({type(exc).__name__})") from exc

    def _take(self) -> Any:
        """The next arrival, or None. `Queue.get` would raise for one that cannot be decoded."""
        queue = self._arrivals()
        message = queue.channel.basic_get(queue=queue.name, no_ack=False)
        convert = getattr(queue.channel, "message_to_python", None)
        return convert(message) if message is not None and convert is not None else message

    def _arrivals(self) -> Any:
        if self._queue is None:
            self._connection = self.app.connection_for_read()
            queues.declare(self._connection, self.settings)
            self._queue = queues.dead_letters(self.settings)(self._connection.default_channel)
        return self._queue

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.collect()
        self._queue = self._connection = None

    def _bury(self, message: Any) -> None:
        headers = message.headers if isinstance(message.headers, dict) else {}
        letter = _letter(message, headers, self.store.now_ms())
        if is_task_id(headers.get("id")):
            kind = "invalid_message" if messages.REASON in headers else "dead_letter"
            try:
                self._fail(letter.id, Failure(kind, f"the message was rejected: {letter.reason}"))
            except StoreBroken as exc:  # one letter holds up no others
                log.error("task of a dead letter left as it is", task_id=letter.id, reason=str(exc))
        self._keep(message, headers, letter)
        graveyard.bury(self.store, letter)
        schedules.count(self.store, "dead-lettered")

    def _fail(self, task_id: str, error: Failure) -> None:
        """Fail the task of a dead letter; one that Redis never had gets a record that says so."""
        while True:
            control, record = self.store.control(task_id), self.store.get(task_id)
            if control is None:
                unknown = Record(task_id, status=Status.FAILED, error=error, finish_reason="error")
                if self.store.bury(unknown, self.settings.task_ttl_s * 1000):
                    return
            elif record is None or record.status is not Status.PENDING:
                # Terminal, or an attempt by way of another message lives: not this letter's affair.
                return
            elif self.store.move(outcomes.failed(record, error), rev=control.rev).outcome is not Moved.MOVED:
                return

    def _keep(self, message: Any, headers: dict[str, Any], letter: DeadLetter) -> None:
        kept = {name: value for name, value in headers.items() if not name.startswith("x-")}
        if not message.errors:
            kept.pop("compression", None)
        noted = {messages.REASON: letter.reason, messages.ORIGIN: letter.queue}
        with broker.producer(self.app, self.settings) as producer:
            producer.publish(
                message.body,
                exchange="",
                routing_key=queues.dead(self.settings).name,
                content_type=message.content_type or "application/octet-stream",
                content_encoding=message.content_encoding or "binary",
                headers={**kept, **noted, messages.ATTEMPTS: letter.attempts},
                retry=False,
                delivery_mode=2,
                mandatory=True,
                confirm_timeout=self.settings.publish_timeout_s,
            )

    def send(self, task_id: str) -> None:
        """Put the message of a task that failed for good among the dead letters.

        Raises:
            BrokerUnavailable: The broker did not confirm; try again.
        """
        control, record = self.store.control(task_id), self.store.get(task_id)
        if control is None or record is None or record.error is None:
            return
        generate = self.app.tasks["textgen.tasks.generate"]
        reason = f"{record.error.type}: {record.error.message}"
        generate.send_dead(record, control.terms, reason, attempts(self.store, control, task_id))


def attempts(store: Store, control: Control, task_id: str) -> list[dict[str, Any]]:
    """What became of each attempt of a task, from its event log: {`attempt`, `at`, `ended`}."""
    found: dict[int, dict[str, Any]] = {}
    after: str | None = None
    while page := read_log(store, task_id, after):
        after = page[-1].id
        for event in page:
            if event.type == "state" and event.attempt:
                entry = found.setdefault(event.attempt, {"attempt": event.attempt, "at": event.data["at"]})
                entry["ended"] = event.data["status"] if event.data["status"] != "PROCESSING" else None
            elif event.type == "reset" and event.attempt in found:
                found[event.attempt]["reason"] = event.data["reason"]
    return [found[number] for number in sorted(found) if number <= control.attempt]


def _letter(message: Any, headers: dict[str, Any], now_ms: float) -> DeadLetter:
    known = is_task_id(headers.get("id"))
    reason = str(headers.get(messages.REASON) or _reason_of_broker(headers))
    history = headers.get(messages.ATTEMPTS)
    return DeadLetter(
        id=str(headers["id"]) if known else new_task_id(),
        reason=reason,
        queue=str(headers.get(messages.ORIGIN) or _queue_of_broker(headers)),
        at=iso_time(now_ms),
        attempts=history if isinstance(history, list) else [],
        trace_id=headers["root_id"] if is_task_id(headers.get("root_id")) else None,
        owner=_owner(headers),
        request=_request(message),
    )


def _owner(headers: dict[str, Any]) -> str:
    header = headers.get(messages.HEADER)
    owner = header.get("owner") if isinstance(header, dict) else None
    return owner if isinstance(owner, str) else "default"


def _request(message: Any) -> dict[str, Any] | None:
    """The arguments of `generate` that the message holds, if they are valid."""
    try:
        args, kwargs, _ = json.loads(message.body)
        return messages.request_of(args, kwargs).as_kwargs()
    except (ValueError, TypeError, RecursionError, InvalidRequest):
        return None


def _death(headers: dict[str, Any]) -> dict[str, Any]:
    deaths = headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, dict) else {}


def _reason_of_broker(headers: dict[str, Any]) -> str:
    return str(_death(headers).get("reason") or headers.get("x-first-death-reason", "unknown"))


def _queue_of_broker(headers: dict[str, Any]) -> str:
    return str(_death(headers).get("queue") or headers.get("x-first-death-queue", ""))
