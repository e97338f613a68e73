"""The client of a textgen server: the calls of `textgen.client`, over HTTP.

Nothing is ever sent twice: a call that fails is reported, and whether to repeat it is the caller's
decision.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from textgen.errors import (
    ConfigurationError,
    IdempotencyKeyReused,
    InvalidRequest,
    SubmitInFlight,
    TaskFinished,
    TaskUnfinished,
    Unavailable,
    UnknownTask,
)
from textgen.lifecycle import Event, Record, is_task_id
from textgen.requests import GenerationRequest
from textgen.selection import EVERY, PAGE, Page, Selection, walk

#: Seconds to connect, and to wait for an answer: longer than a server takes to give up on its broker.
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 20.0
#: Seconds one request of a wait is held open, below what proxies between usually allow.
WAIT_STEP_S = 20.0
#: Seconds between two looks of `stream` at the status; the end of the task is seen at once.
STREAM_STEP_S = 1.0
PROBLEM = "application/problem+json"


class RemoteClient:
    """Submits, reads and cancels tasks of the server at `url`. Threads may share it.

    Args:
        url: Base URL of the server, such as `http://127.0.0.1:8000`.
        transport: How requests are sent; the network if left out.

    Raises:
        ConfigurationError: `url` is not an HTTP address.
    """

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=_checked(url),
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=None),
            headers={"Accept": f"application/json, {PROBLEM}"},
            transport=transport,
        )

    def __enter__(self) -> RemoteClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self, request: GenerationRequest | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Record:
        """Submit a request, once.

        Args:
            request: The request, or its fields as given: those the server validates.
            idempotency_key: With one, the call may be repeated: it leads to the same task.

        Returns:
            The record of the accepted task.

        Raises:
            InvalidRequest: The server refused a field; `errors` names it.
            IdempotencyKeyReused, SubmitInFlight: See `textgen.idempotency.submit`.
            Unavailable: The server did not accept it, or did not answer (it may have accepted it).
        """
        fields = request.as_kwargs() if isinstance(request, GenerationRequest) else dict(request)
        headers = {"Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        # ASCII, so that text that is not UTF-8 reaches the server's validation
        answer = self._call("POST", "/v1/tasks", content=json.dumps(fields), headers=headers)
        return _record(answer)

    def get(self, task_id: str) -> Record:
        """Read a task.

        Raises:
            UnknownTask: No task has this id.
            Unavailable: The server cannot be reached, or cannot reach its store.
        """
        return self._read(task_id, 0)

    def wait(self, task_id: str, timeout_s: float) -> Record:
        """Read a task as soon as it is terminal, or when `timeout_s` seconds are over.

        Raises:
            UnknownTask: No task has this id.
            Unavailable: The server cannot be reached, or cannot reach its store.
        """
        end = time.monotonic() + timeout_s
        while True:
            left = end - time.monotonic()
            record = self._read(task_id, min(left, WAIT_STEP_S))
            if record.status.is_terminal or left <= WAIT_STEP_S:
                return record

    def stream(self, task_id: str) -> Iterator[Event]:
        """Follow a task to its end, by looking at its record again and again.

        Yields:
            A `state` event for each status or attempt seen, and the text as one `chunk` event before
            the terminal one. Their ids count from 1 and are no place to resume from.

        Raises:
            UnknownTask: No task has this id.
            Unavailable: The server cannot be reached; the task goes on.
        """
        seen, count = None, 0
        record = self.get(task_id)
        while True:
            state = (record.status, record.attempt)
            if state != seen:
                for event in _events(record, count):
                    count += 1
                    yield event
            if record.status.is_terminal:
                return
            seen = state
            record = self._read(task_id, STREAM_STEP_S)

    def cancel(self, task_id: str) -> Record:
        """Cancel a task; to cancel it again changes nothing.

        Raises:
            UnknownTask: No task has this id.
            TaskFinished: It is already COMPLETED or FAILED.
            Unavailable: The server cannot be reached, or cannot reach its store.
        """
        return _record(self._call("POST", f"{_path(task_id)}/cancel", task_id))

    def delete(self, task_id: str) -> None:
        """Delete a task that has ended.

        Raises:
            UnknownTask: No task has this id.
            TaskUnfinished: It waits or runs.
            Unavailable: The server cannot be reached, or cannot reach its store.
        """
        self._call("DELETE", _path(task_id), task_id)

    def list_page(self, selection: Selection = EVERY, limit: int = PAGE, cursor: str | None = None) -> Page:
        """A page of the tasks that are yours, newest first; see `textgen.direct.list_page`.

        Raises:
            InvalidRequest: The server refused a condition, or the cursor.
            Unavailable: The server cannot be reached, or cannot reach its store.
        """
        asked = {
            "limit": limit,
            "cursor": cursor,
            "status": selection.status,
            "engine": selection.engine,
            "created_after": selection.created_after and selection.created_after.isoformat(),
            **{f"metadata.{key}": text for key, text in selection.metadata.items()},
        }
        query = {name: value for name, value in asked.items() if value is not None}
        return _page(self._call("GET", "/v1/tasks", params=query))

    def recent(self, limit: int = 50) -> list[Record]:
        """The newest tasks that are yours, newest first."""
        return list(walk(lambda size, cursor: self.list_page(EVERY, size, cursor), limit))

    def overview(self) -> NoReturn:
        """Servers do not show their queues and workers."""
        raise ConfigurationError(_not_over_http("the overview of queues and workers"))

    def _read(self, task_id: str, wait_s: float) -> Record:
        if wait_s <= 0:
            return _record(self._call("GET", _path(task_id), task_id))
        timeout = httpx.Timeout(wait_s + READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None)
        query = {"wait_s": f"{wait_s:.3f}"}
        return _record(self._call("GET", _path(task_id), task_id, params=query, timeout=timeout))

    def _call(self, method: str, path: str, task_id: str | None = None, **given: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **given)
        except httpx.TimeoutException as exc:
            is_submit = (method, path) == ("POST", "/v1/tasks")
            unknown = "; whether it accepted the task is not known" if is_submit else ""
            raise Unavailable(f"{self._http.base_url} did not answer in time{unknown}") from exc
        except httpx.HTTPError as exc:
            raise Unavailable(f"{self._http.base_url} cannot be reached: {exc}") from exc
        if not response.is_success:
            raise _error(response, task_id)
        return response


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("TEXTGEN_URL must be an address such as http://127.0.0.1:8000")
    return url


def _not_over_http(what: str) -> str:
    return (
        f"{what} cannot be had over HTTP; unset TEXTGEN_URL, so that broker and store are read "
        "directly, or use Flower"
    )


def _path(task_id: str) -> str:
    if not is_task_id(task_id):
        raise UnknownTask(f"no task has the id {task_id[:64]!r}")
    return f"/v1/tasks/{task_id}"


def _events(record: Record, count: int) -> Iterator[Event]:
    if record.status.is_terminal and record.result:
        count += 1
        yield Event(f"{count}-{record.attempt}", "chunk", record.attempt, {"text": record.result})
    data = {"status": record.status.value, "at": record.updated_at}
    yield Event(f"{count + 1}-{record.attempt}", "state", record.attempt, data)


def _record(response: httpx.Response) -> Record:
    try:
        return Record.from_dict(response.json())
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise Unavailable(f"{response.url.host} answered, but not as a textgen server does") from exc


def _page(response: httpx.Response) -> Page:
    try:
        shown = response.json()
        return Page([Record.from_dict(one) for one in shown["data"]], shown["next_cursor"])
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise Unavailable(f"{response.url.host} answered, but not as a textgen server does") from exc


def _error(response: httpx.Response, task_id: str | None) -> Exception:
    """The error that a response stands for."""
    problem = _problem(response)
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {response.status_code}")
    kind = str(problem.get("type", "")).removeprefix("urn:textgen:problem:")
    if kind == "idempotency-key-reused":
        return IdempotencyKeyReused(detail)
    if kind == "submit-in-flight":
        return SubmitInFlight(detail)
    if kind == "task-unfinished":
        return TaskUnfinished(detail)
    if response.status_code in (400, 413, 415, 422):
        return _invalid(problem, detail)
    if task_id and problem and response.status_code == 404:
        return UnknownTask(f"no task has the id {task_id!r}, or its record has expired")
    if response.status_code == 409:
        return TaskFinished(detail)
    error = Unavailable(detail if problem else f"{response.url.host} answered {detail}")
    seconds = response.headers.get("Retry-After", "")
    if seconds.isdecimal():
        error.retry_after_s = int(seconds)
    return error


def _problem(response: httpx.Response) -> dict[str, Any]:
    """The body of a problem (RFC 9457), or `{}` where it is something else."""
    if response.headers.get("Content-Type", "").partition(";")[0].strip() != PROBLEM:
        return {}
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _invalid(problem: dict[str, Any], detail: str) -> InvalidRequest:
    listed = problem.get("errors")
    errors = [error for error in listed if isinstance(error, dict)] if isinstance(listed, list) else []
    if not errors:
        return InvalidRequest(detail)
    named = ({"field": str(e.get("field", "body")), "reason": str(e.get("reason", ""))} for e in errors)
    return InvalidRequest.of(*named)
