"""Dead letters: from `<queue>.dlx`, where they arrive, to `<queue>.dead`, where they stay.

In between the task's record is FAILED with the reason, and the index of dead letters gets an entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from textgen import broker, outcomes
from textgen.consumer import REASON
from textgen.errors import BrokerUnavailable
from textgen.lifecycle import Failure, Record, Status, is_task_id
from textgen.settings import Settings
from textgen.store import Store, schedules
from textgen.store.answers import Moved

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
                message = self._arrivals().get(no_ack=False)
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

    def _arrivals(self) -> Any:
        if self._queue is None:
            self._connection = self.app.connection_for_read()
            broker.declare(self._connection, self.settings)
            self._queue = broker.dead_letters(self.settings)(self._connection.default_channel)
        return self._queue

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.collect()
        self._queue = self._connection = None

    def _bury(self, message: Any) -> None:
        headers = message.headers if isinstance(message.headers, dict) else {}
        reason = str(headers.get(REASON) or _reason_of_broker(headers))
        task_id = headers.get("id")
        if is_task_id(task_id):
            self._fail(str(task_id), Failure(_type_of(headers), f"the message was rejected: {reason}"))
        self._keep(message, headers, reason)
        entry = {"task_id": task_id if is_task_id(task_id) else None, "reason": reason}
        schedules.note_dead(self.store, {**entry, "at_ms": int(self.store.now_ms())}, broker.DEAD_LENGTH)
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
                self.store.discard(task_id)
                return

    def _keep(self, message: Any, headers: dict[str, Any], reason: str) -> None:
        kept = {name: value for name, value in headers.items() if not name.startswith("x-")}
        if not message.errors:
            kept.pop("compression", None)
        with broker.producer(self.app, self.settings) as producer:
            producer.publish(
                message.body,
                exchange="",
                routing_key=broker.dead(self.settings).name,
                content_type=message.content_type or "application/octet-stream",
                content_encoding=message.content_encoding or "binary",
                headers={**kept, REASON: reason},
                retry=False,
                delivery_mode=2,
                mandatory=True,
                confirm_timeout=self.settings.publish_timeout_s,
            )


def _reason_of_broker(headers: dict[str, Any]) -> str:
    deaths = headers.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        return str(deaths[0].get("reason", "unknown"))
    return str(headers.get("x-first-death-reason", "unknown"))


def _type_of(headers: dict[str, Any]) -> str:
    return "invalid_message" if REASON in headers else "dead_letter"
