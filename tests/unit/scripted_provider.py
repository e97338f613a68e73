"""A provider that does what no healthy one does: the model that is asked for names the scenario."""

from __future__ import annotations

import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What a provider might say that holds more than it should.
INDISCREET = "Incorrect API key provided: sk-canary-7261. You asked: canary-prompt."
#: A piece of text, and the end, as each of the three ways of speaking has them.
PIECES = {
    "/v1/chat/completions": {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                             "choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]},
    "/v1/responses": {"type": "response.output_text.delta", "delta": "Hello", "item_id": "i",
                      "content_index": 0, "output_index": 0, "sequence_number": 1, "logprobs": []},
    "/v1/messages": {"type": "content_block_delta", "index": 0,
                     "delta": {"type": "text_delta", "text": "Hello"}},
}  # fmt: skip
FAILURES = {
    "/v1/chat/completions": ("", {"error": {"message": INDISCREET, "type": "server_error", "code": None}}),
    "/v1/responses": ("error", {"type": "error", "code": "server_error", "message": INDISCREET, "param": None,
                                "sequence_number": 2}),
    "/v1/messages": ("error", {"type": "error", "error": {"type": "overloaded_error",
                                                          "message": INDISCREET}}),
}  # fmt: skip
#: Stands for the time an hour after the answer.
IN_AN_HOUR = "in an hour"
#: Scenario → status, headers and the provider's code.
REFUSALS: dict[str, tuple[int, dict[str, str], str]] = {
    "429": (429, {}, "rate_limit_exceeded"),
    "429 in milliseconds": (429, {"retry-after-ms": "1500"}, "rate_limit_exceeded"),
    "429 in seconds": (429, {"Retry-After": "7"}, "rate_limit_exceeded"),
    "429 at a time": (429, {"Retry-After": IN_AN_HOUR}, "rate_limit_exceeded"),
    "429 in nonsense": (429, {"Retry-After": "soon"}, "rate_limit_exceeded"),
    "408": (408, {}, "timeout"),
    "409": (409, {}, "conflict"),
    "500": (500, {}, "server_error"),
    "503": (503, {"Retry-After": "3"}, "overloaded"),
    "529": (529, {}, "overloaded_error"),
    "400": (400, {}, "context_length_exceeded"),
    "401": (401, {}, "invalid_api_key"),
    "403": (403, {}, "permission_denied"),
    "404": (404, {}, "model_not_found"),
    "413": (413, {}, "request_too_large"),
    "422": (422, {}, "content_policy_violation"),
    "an odd code": (400, {}, f"{INDISCREET}"),
}


class ScriptedProvider:
    """Listens on loopback while its block runs; remembers what it was asked."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.asked: list[dict[str, Any]] = []
        #: Connections that the client ended while it was being told something.
        self.hung_up = threading.Event()
        handler = type("Handler", (_Handler,), {"provider": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ScriptedProvider:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    provider: ScriptedProvider

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.provider.asked.append(body)
        scenario = body["model"]
        if scenario in REFUSALS:
            self._refuse(*REFUSALS[scenario])
        elif scenario == "closed":
            self.close_connection = True
        elif scenario == "hang":
            self.provider.over.wait()
        elif scenario == "another content type":
            self._begin("text/html")
            self.wfile.write(b"<html>Welcome to the proxy</html>")
        else:
            self._begin("text/event-stream")
            self._stream(scenario)

    def _refuse(self, status: int, headers: dict[str, str], code: str) -> None:
        text = json.dumps({"error": {"message": INDISCREET, "type": code, "code": code}}).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(text)),
            **headers,
        }.items():
            told = formatdate(time.time() + 3600, usegmt=True) if value is IN_AN_HOUR else value
            self.send_header(name, told)
        self.end_headers()
        self.wfile.write(text)

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()

    def _stream(self, scenario: str) -> None:
        path = self.path
        piece = PIECES[path]
        self._say(str(piece.get("type", "")), piece)
        if scenario == "500 in the middle":
            self._say(*FAILURES[path])
        elif scenario == "garbage":
            self.wfile.write(b"event: content_block_delta\ndata: {not JSON\n\n")
        elif scenario == "silence in the middle":
            self.provider.over.wait()
        elif scenario == "drip":
            try:
                while not self.provider.over.wait(0.05):
                    self._say(str(piece.get("type", "")), piece)
            except OSError:
                self.provider.hung_up.set()
        # "truncated": nothing more

    def _say(self, kind: str, data: dict[str, Any]) -> None:
        event = f"event: {kind}\n" if kind else ""
        self.wfile.write(f"{event}data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
