"""The worker's consumer: screens messages before Celery sees them.

Celery acknowledges some bad messages with a log line only, prints the content of others, and dies
of a few. Here each goes to `<queue>.dlx` with the reason in a header, and is acknowledged there.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any

import structlog
from celery.worker.consumer import Consumer

from textgen import broker, messages, queues
from textgen.errors import BrokerUnavailable, InvalidRequest
from textgen.lifecycle import VERSION, is_task_id
from textgen.settings import get_settings

log = structlog.get_logger(__name__)

#: The task whose arguments are screened as well.
GENERATE = "textgen.tasks.generate"
#: The largest time in milliseconds that a header may hold: the year 2255, exact in Redis' numbers.
MAX_MS = 9_000_000_000_000
#: Seconds that a message of a newer version waits for a newer worker.
NEWER_WAIT_S = 8


class Newer(Exception):
    """The message was written by a newer version."""


def screen(message: Any, known_tasks: Any) -> str | None:
    """Say what is wrong with a message, or None if nothing is.

    Raises:
        Newer: A newer version wrote it.
    """
    headers = message.headers
    if not isinstance(headers, dict) or not isinstance(headers.get("task"), str):
        return "it has no task header"
    if message.content_type != "application/json":
        return "its content type is not application/json"
    if headers["task"] not in known_tasks:
        return "its task is not known here"
    wrong = _screen_headers(headers)
    if wrong:
        return wrong
    try:
        body = json.loads(message.body)
    except (ValueError, RecursionError):
        return "its body is not JSON"
    if not (
        isinstance(body, list)
        and [type(part) for part in body[:2]] == [list, dict]
        and len(body) == 3
        and isinstance(body[2], (dict, type(None)))
    ):
        return "its body is not [arguments, keyword arguments, options]"
    return _screen_request(headers, body[0], body[1]) if headers["task"] == GENERATE else None


def _screen_headers(headers: dict[str, Any]) -> str | None:
    if not isinstance(headers.get("id"), str):
        return "it has no id"
    for name in ("eta", "expires"):
        if headers.get(name) is not None and not _is_time(headers[name]):
            return f"its {name} is not a time"
    limits = headers.get("timelimit")
    if limits is not None and not (
        isinstance(limits, (list, tuple)) and len(limits) == 2 and all(_is_seconds(limit) for limit in limits)
    ):
        return "its timelimit is not two numbers of seconds"
    if not isinstance(headers.get("retries", 0), (int, type(None))):
        return "its retries is not a number"
    return None


def _is_time(value: Any) -> bool:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_seconds(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _screen_request(headers: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> str | None:
    if not is_task_id(headers["id"]):
        return "its id is not a lower-case UUID, version 4"
    header = headers.get(messages.HEADER)
    if header is not None:
        if not isinstance(header, dict) or not isinstance(header.get("v"), int):
            return "its textgen header is not one"
        if header["v"] > VERSION:
            raise Newer
        for name in ("deadline_ms", "ttl_ms", "queue_until_ms", "attempt_s"):
            least = 1 if name in ("deadline_ms", "ttl_ms") else 0
            if type(header.get(name, 0)) is not int or not least <= header.get(name, 0) <= MAX_MS:
                return f"its textgen header has no usable {name}"
        for name in ("owner", "created_at", "replay_of"):
            if not isinstance(header.get(name), (str, type(None))):
                return f"its textgen header has no usable {name}"
        if not _are_tries(header.get("tried") or []):
            return "its textgen header has no usable tried"
    try:
        messages.request_of(args, kwargs)
    except InvalidRequest as exc:
        return f"it is no valid request: {exc}"
    return None


#: What a message tells of an engine that was tried → its types.
TRIED: dict[str, Any] = {
    "engine": str,
    "model": (str, type(None)),
    "attempt": int,
    "round": int,
    "reason": str,
    "retryable": bool,
}


def _are_tries(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and one.keys() == TRIED.keys()
        and all(isinstance(one[name], kind) for name, kind in TRIED.items())
        for one in value
    )


class ScreeningConsumer(Consumer):
    """Celery's consumer, behind `screen`."""

    class Blueprint(Consumer.Blueprint):
        """Without Celery's native delayed delivery: waits are held in queues of our own."""

        default_steps = [  # noqa: RUF012 - as in the base class
            step for step in Consumer.Blueprint.default_steps if "delayed_delivery" not in str(step)
        ]

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> None:
            try:
                reason = screen(message, self.app.tasks)
            except Newer:
                self._leave(message)
                return
            if reason is None:
                handle(message)
            else:
                self._quarantine(message, reason)

        return on_message

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._quarantine(message, f"it cannot be decoded ({type(exc).__name__})")

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._quarantine(message, "it is not a task message")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._quarantine(message, "its task is not known here")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._quarantine(message, f"Celery refuses it ({type(exc).__name__})")

    def _quarantine(self, message: Any, reason: str) -> None:
        """Send a message to the dead letters, then acknowledge it."""
        headers = message.headers if isinstance(message.headers, dict) else {}
        log.error("message dead-lettered", reason=reason, task_id=_printable(headers.get("id")))
        settings = get_settings()
        origin = (message.delivery_info or {}).get("routing_key") or ""
        route = {**queues.dead_route(settings), "routing_key": settings.queue}
        self._republish(message, route, {messages.REASON: reason, messages.ORIGIN: origin})

    def _leave(self, message: Any) -> None:
        """Leave a message of a newer version to newer workers, for a while at a time."""
        settings = get_settings()
        log.warning("message of a newer version left alone", task_id=_printable(message.headers.get("id")))
        if not queues.is_rabbitmq(settings):
            self.timer.call_after(NEWER_WAIT_S, message.reject_log_error, (log, self.connection_errors, True))
            return
        route = queues.wait_route(settings, NEWER_WAIT_S)
        self._republish(message, {**route, "routing_key": message.delivery_info["routing_key"]}, {})

    def _republish(self, message: Any, route: dict[str, Any], headers: dict[str, Any]) -> None:
        settings = get_settings()
        route.pop("exchange_type", None)
        kept = dict(message.headers) if isinstance(message.headers, dict) else {}
        if not message.errors:
            kept.pop("compression", None)
        try:
            with broker.producer(self.app, settings) as producer:
                producer.publish(
                    message.body,
                    content_type=message.content_type or "application/octet-stream",
                    content_encoding=message.content_encoding or "binary",
                    headers={**kept, **headers},
                    retry=False,
                    mandatory=True,
                    delivery_mode=2,
                    confirm_timeout=settings.publish_timeout_s,
                    **route,
                )
        except BrokerUnavailable as exc:
            log.error("message handed back", reason=str(exc))
            message.reject_log_error(log, self.connection_errors, requeue=True)
        else:
            message.ack_log_error(log, self.connection_errors)


def _printable(value: Any) -> str | None:
    """An id fit for a log line: only if it is one."""
    return value if is_task_id(value) else None
