"""Sends one webhook: to an address that was looked at, within a time, following nothing.

httpcore is what httpx itself sends with. Used directly, it connects where it is told, and knows no
proxies, redirects, cookies or credentials; nor does it log addresses.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpcore
import httpx

from textgen import __version__
from textgen.errors import AddressRefused
from textgen.webhooks.guard import Endpoint, Guard, parse
from textgen.webhooks.lookup import Address, Unresolved

#: Seconds that connecting to one address may take.
CONNECT_S = 5.0
#: Bytes of an answer that are read, and forgotten.
MAX_ANSWER_BYTES = 65_536
#: The longest wait that a receiver can ask for.
MAX_RETRY_AFTER_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of sending."""

    #: None where nothing was answered.
    status_code: int | None
    #: Why it is no success, in a word or two; empty if it is.
    reason: str
    duration_ms: int
    #: Seconds that the receiver asked to be left alone.
    retry_after_s: float = 0.0

    @property
    def is_success(self) -> bool:
        """Whether the receiver has it."""
        return not self.reason


def post(url: str, headers: Mapping[str, str], body: str, guard: Guard, timeout_s: float) -> Answer:
    """Send `body` once.

    Args:
        url: Where to; looked at again now.
        headers: In addition to those that every request has.
        body: JSON.
        guard: Says which addresses may be connected to.
        timeout_s: Seconds for all of it, the looking up apart.
    """
    began = time.monotonic()
    status: int | None = None
    retry_after_s = 0.0
    try:
        endpoint = parse(url)
        addresses = guard.addresses(endpoint)
        status, retry_after_s = _exchange(endpoint, addresses, headers, body, time.monotonic() + timeout_s)
        reason = "" if 200 <= status < 300 else "redirect" if 300 <= status < 400 else "status"
    except AddressRefused:
        reason = "address refused"
    except Unresolved:
        reason = "host not found"
    except httpcore.TimeoutException:
        reason = "timeout"
    except httpcore.ConnectError as exc:
        reason = "tls" if isinstance(exc.__context__, ssl.SSLError) else "no connection"
    except (httpcore.NetworkError, httpcore.ProtocolError):
        reason = "broken answer"
    return Answer(status, reason, int((time.monotonic() - began) * 1000), retry_after_s)


def _exchange(
    endpoint: Endpoint, addresses: list[Address], headers: Mapping[str, str], body: str, until: float
) -> tuple[int, float]:
    """Send and read the answer; returns its status and the wait that it asks for."""
    sent: dict[bytes | str, bytes | str] = {
        "Host": endpoint.authority,
        "User-Agent": f"textgen/{__version__}",
        "Content-Type": "application/json",
        "Connection": "close",
    }
    sent.update(headers.items())
    url = httpcore.URL(scheme=endpoint.scheme, host=endpoint.host, port=endpoint.port, target=endpoint.target)
    with (
        httpcore.ConnectionPool(ssl_context=_tls(), network_backend=_Pinned(addresses, until)) as pool,
        pool.stream("POST", url, headers=sent, content=body.encode()) as answer,
    ):
        # The status is the answer; its body is taken off the receiver's hands as far as it is small.
        with suppress(httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
            _skim(answer.iter_stream())
        return answer.status, _retry_after_s(answer.headers)


def _skim(parts: Iterable[bytes]) -> None:
    size = 0
    for part in parts:
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            return


def _retry_after_s(headers: list[tuple[bytes, bytes]]) -> float:
    value = {name.lower(): value for name, value in headers}.get(b"retry-after", b"")
    return min(float(value), MAX_RETRY_AFTER_S) if value.isdigit() and len(value) < 10 else 0.0


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Which certificates are believed: certifi's, or those that SSL_CERT_FILE or SSL_CERT_DIR name."""
    return httpx.create_ssl_context()


class _Pinned(httpcore.NetworkBackend):
    """Connects to the addresses given, whatever the name; all that goes on ends at `until`."""

    def __init__(self, addresses: list[Address], until: float) -> None:
        self._addresses = addresses
        self._until = until
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectTimeout()
        for address in self._addresses:
            left = self._until - time.monotonic()
            if left <= 0:
                break
            try:
                stream = self._network.connect_tcp(str(address), port, min(left, CONNECT_S))
                return _Bounded(stream, self._until)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise failure


class _Bounded(httpcore.NetworkStream):
    """A stream that ends at `until`, however often there is a little to read before."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def _left(self) -> float:
        return max(self._until - time.monotonic(), 0.001)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if time.monotonic() >= self._until:
            raise httpcore.ReadTimeout
        return self._stream.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left())

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, self._left()), self._until)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
