"""The client at the other end of a request's connection: whether it is still there."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

import gevent

#: Seconds after which a client that acknowledges nothing, or leaves its window shut, is given up.
SILENCE_S = 60


class Peer:
    """The client of one request.

    Args:
        sock: The connection.
        watched: Where peers that are watched are kept.
    """

    def __init__(self, sock: Any, watched: set[Peer]) -> None:
        self._sock, self._watched = sock, watched
        self._end: Callable[[], None] | None = None
        self._readable: Any = None
        #: Whether the client has closed the connection, as far as anybody watched.
        self.has_gone = False
        #: Whether it is not the client but this process that ends.
        self.is_stopping = False

    def watch(self, end: Callable[[], None]) -> None:
        """Have `end` called when the client closes the connection, or the process is to end.

        A client that shuts down only its sending side counts as gone, as it does for most proxies.
        A TLS connection is not watched: there, only writing tells.
        """
        self._end = end
        self._watched.add(self)
        if isinstance(self._sock, ssl.SSLSocket):
            return
        give_up_on_silence(self._sock)
        # No greenlet waits here: the event loop calls, and a greenlet made then takes one look.
        self._readable = gevent.get_hub().loop.io(self._sock.fileno(), 1)
        self._readable.start(self._on_readable)

    def unwatch(self) -> None:
        """End the watch."""
        self._end = None
        self._watched.discard(self)
        if self._readable:
            self._readable.stop()
            self._readable.close()
            self._readable = None

    def stop(self) -> None:
        """Tell the request that this process ends."""
        self.is_stopping = True
        if self._end:
            self._end()

    def _on_readable(self) -> None:
        self._readable.stop()
        gevent.spawn(self._look)

    def _look(self) -> None:
        if not self._end:
            return
        try:
            # Bytes would be the next request, sent ahead: it waits, and only writing tells any more.
            self.has_gone = not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:
            self.has_gone = True
        if self.has_gone:
            self._end()


def give_up_on_silence(sock: Any) -> None:
    """Have the kernel break a connection whose client has vanished without a word."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_S // 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENCE_S // 4)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000)
