"""What gunicorn refuses by itself, before the app sees it: problems (RFC 9457) instead of its HTML."""

from __future__ import annotations

import json
import socket
import time
from http import HTTPStatus
from typing import Any

from gunicorn.http import errors

#: Error → how it is answered; all other malformed requests are 400.
STATUSES = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    errors.ForbiddenProxyRequest: HTTPStatus.FORBIDDEN,
}
#: Names of the errors that are ours though gunicorn counts them among those of parsing.
OURS = ("ConfigurationProblem", "InvalidResponseHeader", "InvalidResponseHeaderName")
#: Bytes, and seconds, of what a refused client still sends that are read, so that it sees the answer.
DRAIN_BYTES, DRAIN_S = 262_144, 2.0


def status_of(exc: BaseException) -> HTTPStatus:
    """How a request that led to `exc` is answered."""
    if not isinstance(exc, errors.ParseException) or type(exc).__name__ in OURS:
        return HTTPStatus.INTERNAL_SERVER_ERROR
    found = (status for error, status in STATUSES.items() if isinstance(exc, error))
    return next(found, HTTPStatus.BAD_REQUEST)


def response(status: HTTPStatus) -> bytes:
    """The whole answer, after which the connection ends."""
    detail = "The request could not be read; it is not HTTP as this server accepts it."
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        detail = "Something went wrong here; it is logged."
    shown = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    body = json.dumps(shown)
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Connection: close",
    )
    return "\r\n".join((*head, "", body)).encode("ascii")


def send(sock: Any, status: HTTPStatus) -> None:
    """Answer and end the connection, in bounded time.

    Closing while something is unread would reset the connection, and might take the answer with it.

    Raises:
        OSError: The client did not take it.
    """
    until, left = time.monotonic() + DRAIN_S, DRAIN_BYTES
    sock.settimeout(DRAIN_S)
    sock.sendall(response(status))
    sock.shutdown(socket.SHUT_WR)
    while left > 0 and (wait_s := until - time.monotonic()) > 0:
        sock.settimeout(wait_s)
        found = sock.recv(8192)
        if not found:
            return
        left -= len(found)
