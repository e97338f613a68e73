"""A real receiver of webhooks: an HTTP or HTTPS server that answers as it is told, and remembers."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.processes import require, wait_until


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float


class Receiver:
    """Listens on loopback.

    `answers` are given in order, then 200 for ever: a status, a status and headers, "hang" (answers
    nothing until the end of the block), "drip" (a header line now and then, without end), "cut"
    (closes the connection), "flood" (200, and a body without end).
    """

    def __init__(self, *answers: Any, certificate: Path | None = None, sni: list[str] | None = None) -> None:
        self.answers = list(answers)
        self.received: list[Received] = []
        self.over = threading.Event()
        #: Bytes of a "flood" that went out.
        self.flooded = 0
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            if sni is not None:
                context.sni_callback = lambda _sock, name, _context: sni.append(name)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.port = self._server.server_port
        self.url = f"{scheme}://127.0.0.1:{self.port}/hook?token=canary-q"

    def wait_for(self, number: int, timeout_s: float = 20) -> list[Received]:
        """Wait until so many requests have come."""
        wait_until(lambda: len(self.received) >= number, timeout_s, f"{number} requests have come")
        return self.received

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        lower = {name.lower(): value for name, value in self.headers.items()}
        self.receiver.received.append(Received(self.path, lower, body, time.time()))
        answer = self.receiver.answers.pop(0) if self.receiver.answers else 200
        if answer == "cut":
            return
        if answer == "hang":
            self.receiver.over.wait()
        elif answer == "drip":
            self._drip()
        elif answer == "flood":
            self._flood()
        else:
            self._answer(*(answer if isinstance(answer, tuple) else (answer, {})))

    def do_GET(self) -> None:
        self.do_POST()

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.receiver.over.wait(0.2):
            self.wfile.write(b"X-Again: x\r\n")

    def _flood(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not self.receiver.over.is_set():
            self.wfile.write(b"x" * 4096)
            self.receiver.flooded += 4096

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the sender has gone, as it should
            self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def several(number: int, *answers: Any) -> Iterator[list[Receiver]]:
    """So many receivers that answer alike."""
    receivers = [Receiver(*answers).__enter__() for _ in range(number)]
    yield receivers
    for receiver in receivers:
        receiver.__exit__()


def certificate(folder: Path, host: str) -> Path:
    """A file with a key and a certificate for `host`, which is its own authority."""
    file, key = folder / f"{host}.pem", folder / f"{host}.key"
    command = [require("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={host}"]
    command += ["-addext", f"subjectAltName=DNS:{host}", "-keyout", str(key), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + key.read_text())
    return file
