"""A provider that does what no healthy one does: the model that is asked for names the scenario."""

from __future__ import annotations

import gzip
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
#: How a whole answer begins and ends beside its piece of text: (event, data) each.
BEGINNINGS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "/v1/messages": [
        ("message_start", {"type": "message_start", "message": {
            "id": "m", "type": "message", "role": "assistant", "model": "m-1", "content": [],
            "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": 4, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2,
                      "output_tokens": 1}}}),
        ("content_block_start", {"type": "content_block_start", "index": 0,
                                 "content_block": {"type": "text", "text": ""}}),
    ],
}  # fmt: skip
ENDS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "/v1/chat/completions": [
        ("", {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-1",
              "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        ("", {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [],
              "usage": {"prompt_tokens": 11, "completion_tokens": 9, "total_tokens": 20,
                        "prompt_tokens_details": {"cached_tokens": 5},
                        "completion_tokens_details": {"reasoning_tokens": 3}}}),
    ],
    "/v1/responses": [
        ("response.completed", {"type": "response.completed", "sequence_number": 3, "response": {
            "id": "r", "object": "response", "created_at": 1, "model": "m-1", "output": [],
            "status": "completed", "parallel_tool_calls": False, "tool_choice": "auto", "tools": [],
            "usage": {"input_tokens": 11, "output_tokens": 9, "total_tokens": 20,
                      "input_tokens_details": {"cached_tokens": 5},
                      "output_tokens_details": {"reasoning_tokens": 3}}}}),
    ],
    "/v1/messages": [
        ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn",
                                                              "stop_sequence": None},
                           "usage": {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 3}}}),
        ("message_stop", {"type": "message_stop"}),
    ],
}  # fmt: skip
#: What every answer has: its id, and what is left of the limits, in the words of each provider.
TOLD = {
    "/v1/messages": {
        "request-id": "req_canary-free.1",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "in an hour, by RFC 3339",
        "anthropic-ratelimit-input-tokens-limit": "10000",
        "anthropic-ratelimit-input-tokens-remaining": "9000",
        "anthropic-ratelimit-output-tokens-limit": "1000",
        "anthropic-ratelimit-output-tokens-remaining": "10",
    },
    "": {
        "x-request-id": "req_canary-free.1",
        "x-ratelimit-limit-requests": "50",
        "x-ratelimit-remaining-requests": "49",
        "x-ratelimit-reset-requests": "1h0m0s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": "20ms",
    },
}
FAILURES = {
    "/v1/chat/completions": ("", {"error": {"message": INDISCREET, "type": "server_error", "code": None}}),
    "/v1/responses": ("error", {"type": "error", "code": "server_error", "message": INDISCREET, "param": None,
                                "sequence_number": 2}),
    "/v1/messages": ("error", {"type": "error", "error": {"type": "overloaded_error",
                                                          "message": INDISCREET}}),
}  # fmt: skip
#: Scenario → what an answer goes on with that nobody can read.
NONSENSE = {
    "garbage": b"event: content_block_delta\ndata: {not JSON\n\n",
    "a list": b"data: [1]\n\n",
    "half a character": b'data: {"type": "\xc3"}\n\n',
    "a long number": b'data: {"created": ' + b"1" * 5000 + b"}\n\n",
    "a long event": b"data: " + b"1" * 5_000_000,
    "many brackets": b"data: " + b"[" * 200_000 + b"\n\n",
}
#: Scenario → what an answer says again and again, and nothing else.
DRIPS = {
    "comments": b": ping\n\n",
    "a line without an end": b"data: 1",
    "events without text": b'data: {"type": "ping", "choices": []}\n\n',
}
#: A little that unpacks to a lot, and the statuses it is told with.
BOMB = gzip.compress(b"1" * 50_000_000)
PACKED = {"packed": 200, "500 packed": 500}
#: Where a redirect leads to, and what is told along with it.
ELSEWHERE = "http://127.0.0.1:9/canary-elsewhere"
COOKIE = {"Set-Cookie": "seen=canary; Path=/"}
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


def _replaced(data: Any, odd: dict[str, Any]) -> Any:
    return json.loads(
        json.dumps(data),
        object_hook=lambda told: {name: odd.get(name, value) for name, value in told.items()},
    )


class ScriptedProvider:
    """Listens on loopback while its block runs; remembers what it was asked."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        #: What is said where a whole text is asked for.
        self.text = "Hello"
        #: What the scenario `odd` says in the place of these fields.
        self.odd: dict[str, Any] = {}
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
        self.provider.paths.append(self.path)
        self.provider.headers.append({name.lower(): value for name, value in self.headers.items()})
        if scenario in REFUSALS:
            self._refuse(*REFUSALS[scenario])
        elif scenario.startswith("echo "):
            told = scenario.removeprefix("echo ")
            self._refuse(400, dict.fromkeys(("x-request-id", "request-id"), told), told)
        elif scenario in PACKED:
            self._begin("text/event-stream", PACKED[scenario], {"Content-Encoding": "gzip"})
            self.wfile.write(BOMB)
        elif scenario == "401 without an end":
            self._begin("application/json", 401)
            self._drip(b" ")
        elif scenario == "401 without bounds":
            self._begin("application/json", 401)
            self._drip(b" " * 10_000_000)
        elif scenario.startswith("redirect "):
            self._refuse(int(scenario.removeprefix("redirect ")), {"Location": ELSEWHERE, **COOKIE}, "moved")
        elif scenario == "closed":
            self.close_connection = True
        elif scenario == "hang":
            self.provider.over.wait()
        elif scenario == "another content type":
            self._begin("text/html")
            self.wfile.write(b"<html>Welcome to the proxy</html>")
        elif scenario in DRIPS:
            self._begin("text/event-stream")
            self._drip(DRIPS[scenario])
        else:
            self._begin("text/event-stream")
            self._stream(scenario)

    def _drip(self, told: bytes) -> None:
        try:
            while not self.provider.over.wait(0.05):
                self.wfile.write(told)
        except OSError:
            self.provider.hung_up.set()

    def _refuse(self, status: int, headers: dict[str, str], code: str) -> None:
        text = json.dumps({"error": {"message": INDISCREET, "type": code, "code": code}}).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(text)),
            **self._told(),
            **headers,
        }.items():
            told = formatdate(time.time() + 3600, usegmt=True) if value is IN_AN_HOUR else value
            self.send_header(name, told)
        self.end_headers()
        self.wfile.write(text)

    def _told(self) -> dict[str, str]:
        told = dict(TOLD.get(self._way(), TOLD[""]))
        in_an_hour = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return {name: in_an_hour if "RFC 3339" in value else value for name, value in told.items()}

    def _way(self) -> str:
        """The path as OpenAI and Anthropic have it, whatever stands in front of it."""
        path = self.path.partition("?")[0]
        return next((way for way in PIECES if path.endswith(way.removeprefix("/v1"))), path)

    def do_GET(self) -> None:
        if "canary" in self.headers.get("Authorization", "") + self.headers.get("x-api-key", ""):
            self._send(200, {"data": [{"id": "tiny", "object": "model", "type": "model"}], "object": "list"})
        else:
            self._refuse(*REFUSALS["401"])

    def _send(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _begin(self, kind: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**self._told(), **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()

    def _stream(self, scenario: str) -> None:
        path = self._way()
        piece = json.loads(json.dumps(PIECES[path]).replace("Hello", json.dumps(self.provider.text)[1:-1]))
        odd = self.provider.odd if scenario == "odd" else {}
        for kind, data in BEGINNINGS.get(path, []):
            self._say(kind, _replaced(data, odd))
        self._say(str(piece.get("type", "")), piece)
        if scenario == "500 in the middle":
            self._say(*FAILURES[path])
        elif scenario in NONSENSE:
            self.wfile.write(NONSENSE[scenario])
        elif scenario in ("whole", "odd"):
            for kind, data in ENDS[path]:
                self._say(kind, _replaced(data, odd))
        elif scenario == "silence in the middle":
            self.provider.over.wait()
        elif scenario == "drip":
            self._drip(b"data: " + json.dumps(piece).encode() + b"\n\n")
        # "truncated": nothing more

    def _say(self, kind: str, data: dict[str, Any]) -> None:
        event = f"event: {kind}\n" if kind else ""
        self.wfile.write(f"{event}data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
