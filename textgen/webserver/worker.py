"""gunicorn's gevent worker as streams need it: clients are watched, slow ones bounded, no HTML said."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import gevent
from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventWorker

from textgen import exposure
from textgen.errors import ConfigurationError
from textgen.logs import outline
from textgen.settings import get_settings
from textgen.webserver import refusals
from textgen.webserver.peer import Peer
from textgen.webserver.timed import TimedBody

#: Seconds that a client may take to make room for what is sent, before it is given up.
SEND_S = 15.0
#: Threads that gevent looks names up with: more than webhooks take at once (`textgen.webhooks.lookup`).
LOOKUP_THREADS = 48
#: Files that a process has open beside its clients' connections.
OTHER_FILES = 256


class Worker(GeventWorker):
    """One process of the web app."""

    def init_process(self) -> None:
        self.watched: set[Peer] = set()
        _allow_files(self.worker_connections + OTHER_FILES)
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the app; its requests find their `Peer` in the environment, as `textgen.peer`."""
        try:
            exposure.refuse(self._hosts(), get_settings())
        except ConfigurationError as exc:
            self.log.critical("%s", exc)
            sys.exit(Arbiter.APP_LOAD_ERROR)
        gevent.get_hub().threadpool.maxsize = LOOKUP_THREADS
        super().load_wsgi()
        app: Any = self.wsgi  # type: ignore[has-type]  # gunicorn's own

        def with_peer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            environ["wsgi.input"] = TimedBody(environ["wsgi.input"])
            environ["textgen.peer"] = Peer(environ["gunicorn.socket"], self.watched)
            return app(environ, start_response)

        self.wsgi = with_peer

    def _hosts(self) -> list[str]:
        """The addresses that it listens on, but for sockets in the file system."""
        return [str(address[0]) for address in self.cfg.address if isinstance(address, tuple)]

    def notify(self) -> None:
        """Say that this process lives, once a second; and to the streams, that it is to end."""
        super().notify()
        if not self.alive:
            for peer in list(self.watched):
                peer.stop()

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Serve one request; a client that does not read what it is sent is given up."""
        sock.settimeout(SEND_S)
        try:
            return super().handle_request(listener_name, req, sock, addr)
        except (TimeoutError, ConnectionError):
            raise StopIteration from None

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that did not reach the app. What it said is in no answer and no log."""
        status = refusals.status_of(exc)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log.error("a request failed: %s", outline(exc))
        else:
            self.log.warning("refused a request: %s", type(exc).__name__)
        with suppress(OSError):
            refusals.send(client, status)


def _allow_files(wanted: int) -> None:
    """Raise this process's limit of open files to `wanted`, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
