"""A task's events on the wire: as Server-Sent Events, or as plain text for `curl -N`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal

import structlog
from flask import Response, request

from textgen import client
from textgen.errors import StoreUnavailable, TaskFinished, Unavailable, UnknownTask
from textgen.http import held
from textgen.lifecycle import Event, Record, Status

log = structlog.get_logger(__name__)

#: How a stream is written.
Form = Literal["sse", "text"]
TYPES: dict[Form, str] = {"sse": "text/event-stream", "text": "text/plain; charset=utf-8"}
#: The id of the last event, behind which nothing comes.
END = "end"
#: Milliseconds after which browsers come back where a stream was broken off.
RETRY_MS = 1000
#: Seconds after which a stream is broken off, for its client to resume: so a client that never reads
#: cannot hold one for as long as a task may wait.
STREAM_S = 3600.0
#: Event type → what its data says, beside the attempt.
SHOWN = {"state": ("status", "at"), "chunk": ("text",), "reset": ("reason",)}


def respond(task_id: str, form: Form, after: str | None, cancel: bool, owner: str) -> Response:
    """Answer with a task's events, from behind `after` to its end.

    Args:
        task_id: Which task.
        form: How they are written.
        after: Id of the event behind which to begin; None for the beginning.
        cancel: Whether the task is cancelled if the client goes away before the end.
        owner: Whose task it must be.

    Raises:
        UnknownTask: There is none with this id, or it is somebody else's.
        LimitExceeded: The owner has too many requests open.
        StoreUnavailable: Redis did not answer.
    """
    following = client.stream(task_id, after, owner)
    give_back = held.take(owner)
    steps: Iterator[str] = iter(())
    if request.method != "HEAD":
        steps = _watched(following, task_id, form, cancel, request.environ.get("textgen.peer"))
    answer = Response(steps)
    answer.call_on_close(give_back)
    answer.content_type = TYPES[form]
    answer.headers["Cache-Control"] = "no-store, no-transform"
    answer.headers["X-Accel-Buffering"] = "no"  # nginx would hold the text back
    return answer


def _watched(following: client.Following, task_id: str, form: Form, cancel: bool, peer: Any) -> Iterator[str]:
    """The stream, until it ends or its client goes away.

    The web server's `peer` tells when that is; without one, only a write that fails does.
    """
    could_write = True
    if peer:
        peer.watch(following.stop)
    try:
        yield from _written(following, task_id, form)
    except GeneratorExit:  # thrown by the web server when a write failed, or when it stops
        could_write = peer is not None and peer.is_stopping
        raise
    finally:
        if peer:
            peer.unwatch()
        following.close()
        if cancel and (not could_write or (peer and peer.has_gone)):
            _cancel(task_id)


def _written(following: client.Following, task_id: str, form: Form) -> Iterator[str]:
    writer = _sse if form == "sse" else _text
    try:
        yield from writer(following, lambda: client.get(task_id))
    except (StoreUnavailable, UnknownTask) as exc:
        log.warning("http.stream_broken", task_id=task_id, reason=type(exc).__name__)
        if form == "text":
            # The only way to say that what was sent is not all.
            raise ConnectionAbortedError from None
        yield ": broken off; resume with Last-Event-ID\n\n"


def _sse(following: client.Following, read: Callable[[], Record]) -> Generator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    for page in _for_a_while(following):
        # one write for all that was there at once
        yield "".join(_shown(event) for event in page if event.type in SHOWN) or ":\n\n"
    if following.is_over:
        yield _frame(END, "end", read().as_dict())


def _shown(event: Event) -> str:
    data = {name: event.data[name] for name in SHOWN[event.type]} | {"attempt": event.attempt}
    return _frame(event.id, event.type, data)


def _frame(event_id: str, kind: str, data: dict[str, Any]) -> str:
    # ASCII: no client then takes a character of the text for the end of a line.
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"


def _text(following: client.Following, read: Callable[[], Record]) -> Generator[str]:
    has_text = False
    yield ""  # sends the headers
    for page in _for_a_while(following):
        told = ""
        for event in page:
            told += _plain(event) if has_text or event.type == "chunk" else ""
            has_text = has_text or event.type == "chunk"
        yield told
    if not following.is_over:
        raise ConnectionAbortedError
    record = read()
    if record.status is not Status.COMPLETED:
        yield f"\n[{record.status.value}{': ' + record.error.message if record.error else ''}]\n"


def _plain(event: Event) -> str:
    if event.type == "reset":
        return f"\n[The text so far is void: {event.data['reason']}. It begins anew.]\n"
    return str(event.data["text"]) if event.type == "chunk" else ""


def _for_a_while(following: client.Following) -> Iterator[list[Event]]:
    until = time.monotonic() + STREAM_S
    for page in following.pages:
        yield page
        if time.monotonic() > until:
            return


def _cancel(task_id: str) -> None:
    """Cancel the task of a client that has gone."""
    try:
        client.cancel(task_id)
        log.info("http.cancelled_on_disconnect", task_id=task_id)
    except (TaskFinished, UnknownTask):
        pass
    except Unavailable as exc:
        log.warning("http.not_cancelled_on_disconnect", task_id=task_id, reason=str(exc))
