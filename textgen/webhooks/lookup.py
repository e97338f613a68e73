"""Looks up what the names of webhooks' receivers lead to, within a time and not too many at once."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Seconds that looking a name up may take.
LOOKUP_S = 3.0
#: Names looked up at once in a process, so that slow name servers leave it threads for names of its own.
LOOKUPS = 32

_lookups = threading.BoundedSemaphore(LOOKUPS)


class Unresolved(Exception):
    """A name leads nowhere.

    Attributes:
        is_temporary: Whether asking again may help.
    """

    def __init__(self, is_temporary: bool) -> None:
        super().__init__("the host cannot be resolved")
        self.is_temporary = is_temporary


def resolve(host: str, port: int, timeout_s: float = LOOKUP_S) -> list[Address]:
    """Look a name up, bounded in time; an address in any notation that the system knows is one.

    Raises:
        Unresolved: It leads nowhere, or too many others are being looked up.
    """
    places = _lookups
    if not places.acquire(timeout=timeout_s):
        raise Unresolved(is_temporary=True)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            answers.put(exc)
        finally:
            places.release()

    threading.Thread(target=look_up, name="lookup", daemon=True).start()
    try:
        found = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise Unresolved(is_temporary=True) from None
    if isinstance(found, Exception):
        raise Unresolved(getattr(found, "errno", None) == socket.EAI_AGAIN) from found
    return [_unwrapped(ipaddress.ip_address(text)) for text in dict.fromkeys(entry[4][0] for entry in found)]


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address only wraps, which is the one connected to."""
    return getattr(address, "ipv4_mapped", None) or address
