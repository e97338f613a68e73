"""The client of a textgen server: the calls of `textgen.client`, over HTTP.

A call is repeated, within bounds, where the server says when to come back (429, 503) or the connection
breaks; each submit carries an idempotency key, so that it leads to one task all the same.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from textgen.errors import ConfigurationError, InvalidRequest, Unavailable, UnknownTask
from textgen.lifecycle import Event, Record, is_task_id
from textgen.requests import GenerationRequest
from textgen.responses import PROBLEM, Told, error_of, events_of, page_of, record_of, usage_of
from textgen.selection import EVERY, PAGE, Page, Selection, walk
from textgen.settings import get_settings
from textgen.store.ledger import Used

#: Seconds to connect, and to wait for an answer: longer than a server takes to give up on its broker.
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 20.0
#: Seconds one request of a wait is held open, below what proxies between usually allow.
WAIT_STEP_S = 20.0
#: Seconds without a byte after which a stream is taken for dead: servers send one every 15 s.
SILENCE_S = 40.0
#: Seconds for which a call is repeated while the server has no room or cannot reach a part of itself,
#: and a stream is taken up again.
PATIENCE_S = 15.0
#: Pauses in seconds before a call is repeated that met no server, or lost it.
RECONNECT_S = (0.25, 1.0)
#: What to make of an event: those of newer servers are left out.
KNOWN = ("state", "chunk", "reset")


class RemoteClient:
    """Submits, reads and cancels tasks of the server at `url`. Threads may share it.

    Args:
        url: Base URL of the server, such as `http://127.0.0.1:8000`.
        api_key: The key to show; None: `TEXTGEN_API_KEY`.
        transport: How requests are sent; the network if left out.
        patience_s: See `PATIENCE_S`; 0 repeats nothing.

    Raises:
        ConfigurationError: `url` is not an HTTP address.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._patience_s = patience_s
        self._http = httpx.Client(
            base_url=_checked(url),
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=None),
            headers={"Accept": f"application/json, {PROBLEM}"} | _authorization(api_key),
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
        """Submit a request; it leads to one task, however often it must be sent.

        Args:
            request: The request, or its fields as given: those the server validates.
            idempotency_key: With one of your own, you may repeat the call: it leads to the same task.

        Returns:
            The record of the accepted task.

        Raises:
            InvalidRequest: The server refused a field; `errors` names it.
            IdempotencyKeyReused, SubmitInFlight: See `textgen.idempotency.submit`.
            LimitExceeded, QueueFull, BudgetExhausted: A limit is reached, and will be for a while.
            Unavailable: The server did not accept it, or did not answer (it may have accepted it).
        """
        fields = request.as_kwargs() if isinstance(request, GenerationRequest) else dict(request)
        key = str(uuid.uuid4()) if idempotency_key is None else _checked_key(idempotency_key)
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return record_of(self._call("POST", "/v1/tasks", content=_as_json(fields), headers=headers))

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

    def stream(self, task_id: str, after: str | None = None) -> Iterator[Event]:
        """Follow a task's events from the beginning, or from behind event `after`, to its end.

        A stream that breaks off is taken up again behind the last event, with any process of the server.

        Raises:
            UnknownTask: No task has this id.
            InvalidRequest: `after` is not an event's id.
            Unavailable: The server cannot be reached; the task goes on.
        """
        path, give_up = f"{_path(task_id)}/events", time.monotonic() + self._patience_s
        while True:
            try:
                for told in self._told(path, task_id, after):
                    if told.kind == "end":
                        return
                    after, give_up = told.id, time.monotonic() + self._patience_s
                    if told.kind in KNOWN:
                        yield _event(told)
                pause_s: float = RECONNECT_S[0]  # the server ended it, to be resumed
            except Unavailable as exc:
                pause_s = min(exc.retry_after_s, RECONNECT_S[-1])
                if time.monotonic() + pause_s > give_up:
                    raise
            _pause(pause_s)

    def _told(self, path: str, task_id: str, after: str | None) -> Iterator[Told]:
        """What one connection tells, up to its end."""
        headers = {"Accept": f"text/event-stream, {PROBLEM}"} | ({"Last-Event-ID": after} if after else {})
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_TIMEOUT_S, pool=None)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(response, task_id)
                if response.status_code == 204:
                    yield Told("end", "end", {})
                    return
                yield from events_of(response)
        except httpx.HTTPError as exc:
            raise Unavailable(f"{self._http.base_url} cannot be reached: {exc}") from exc

    def cancel(self, task_id: str) -> Record:
        """Cancel a task; to cancel it again changes nothing.

        Raises:
            UnknownTask: No task has this id.
            TaskFinished: It is already COMPLETED or FAILED.
            Unavailable: The server cannot be reached, or cannot reach its store.
        """
        return record_of(self._call("POST", f"{_path(task_id)}/cancel", task_id))

    def delete(self, task_id: str) -> None:
        """Delete a task that has ended.

        Raises:
            UnknownTask: No task has this id.
            TaskUnfinished: It waits or runs.
            Unavailable: The server cannot be reached, or cannot reach its store.
        """
        self._call("DELETE", _path(task_id), task_id)

    def clear_cache(self) -> int:
        """Delete the cached results of the key's owner; returns how many there were.

        Raises:
            Unavailable: The server cannot be reached, or cannot reach its store.
        """
        return int(self._call("DELETE", "/v1/cache").json()["cleared"])

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
        return page_of(self._call("GET", "/v1/tasks", params=query))

    def recent(self, limit: int = 50) -> list[Record]:
        """The newest tasks that are yours, newest first."""
        return list(walk(lambda size, cursor: self.list_page(EVERY, size, cursor), limit))

    def usage(self, first: date | None = None, last: date | None = None) -> list[Used]:
        """What each of your keys used, day by day, of tasks that have ended.

        Args:
            first: The first day, of UTC; by default so that 30 are shown.
            last: The last day; by default today.

        Raises:
            Unavailable: The server cannot be reached, or cannot reach its store.
        """
        days = {name: day.isoformat() for name, day in (("from", first), ("to", last)) if day}
        return usage_of(self._call("GET", "/v1/usage", params=days))

    def overview(self) -> NoReturn:
        """Servers do not show their queues and workers."""
        raise ConfigurationError(_not_over_http("the overview of queues and workers"))

    def _read(self, task_id: str, wait_s: float) -> Record:
        if wait_s <= 0:
            return record_of(self._call("GET", _path(task_id), task_id))
        timeout = httpx.Timeout(wait_s + READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None)
        query = {"wait_s": f"{wait_s:.3f}"}
        return record_of(self._call("GET", _path(task_id), task_id, params=query, timeout=timeout))

    def _call(self, method: str, path: str, task_id: str | None = None, **given: Any) -> httpx.Response:
        """Make a call, again and again while that is worth while and `patience_s` seconds last."""
        give_up, reconnects = time.monotonic() + self._patience_s, iter(RECONNECT_S)
        while True:
            try:
                response = self._http.request(method, path, **given)
                if response.is_success:
                    return response
                error = error_of(response, task_id)
                pause_s = _asked_pause_s(response, error)
            except httpx.HTTPError as exc:
                error, pause_s = self._broken(path, exc), next(reconnects, None)
                error.__cause__ = exc
            if pause_s is None or time.monotonic() + pause_s > give_up:
                raise error
            _pause(pause_s)

    def _broken(self, path: str, exc: httpx.HTTPError) -> Exception:
        if isinstance(exc, httpx.TimeoutException):
            unknown = "; whether it accepted the task is not known" if path == "/v1/tasks" else ""
            return Unavailable(f"{self._http.base_url} did not answer in time{unknown}")
        return Unavailable(f"{self._http.base_url} cannot be reached: {exc}")


def _asked_pause_s(response: httpx.Response, error: Exception) -> float | None:
    """Seconds after which the server asks to come back; None where it does not, or it would not help."""
    if not isinstance(error, Unavailable) or "Retry-After" not in response.headers:
        return None
    return error.retry_after_s if response.status_code in (409, 429, 503) else None


def _pause(seconds: float) -> None:
    time.sleep(seconds * random.uniform(1, 1.2))  # noqa: S311 - jitter


def _event(told: Told) -> Event:
    kind: Any = told.kind
    return Event(told.id, kind, int(told.data.pop("attempt", 0)), told.data)


def _authorization(api_key: str | None) -> dict[str, str]:
    key = get_settings().api_key.get_secret_value() if api_key is None else api_key
    if not key.isascii() or not key.isprintable():
        raise ConfigurationError("TEXTGEN_API_KEY is no key: it has characters that no key has")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("TEXTGEN_URL must be an address such as http://127.0.0.1:8000")
    return url


def _checked_key(key: str) -> str:
    from textgen.idempotency import reason_against

    if reason := reason_against(key):
        raise InvalidRequest.of({"field": "idempotency_key", "reason": reason})
    return key


def _as_json(fields: Mapping[str, Any]) -> str:
    """ASCII, so that text that is not UTF-8 reaches the server's validation."""
    try:
        return json.dumps(fields)
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest.of({"field": "body", "reason": "must be plain JSON"}) from None


def _not_over_http(what: str) -> str:
    return (
        f"{what} cannot be had over HTTP; unset TEXTGEN_URL, so that broker and store are read "
        "directly, or use Flower"
    )


def _path(task_id: str) -> str:
    if not is_task_id(task_id):
        raise UnknownTask(f"no task has the id {task_id[:64]!r}")
    return f"/v1/tasks/{task_id}"
