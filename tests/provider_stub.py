"""A provider on loopback that can be full, down, or at its limit, and that notes when it was asked.

It speaks OpenAI's Chat Completions and Anthropic's Messages as streams. What it counts is what a real
provider would: the arrivals of requests, by its own clock.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Headers = dict[str, str]


@dataclass
class Behaviour:
    """What the provider does; may be changed while it runs."""

    words: tuple[str, ...] = ("all ", "is ", "well")
    #: What the name of a model has behind it in answers.
    version: str = ""
    #: Seconds before the first word, and before each other.
    delay_s: float = 0.0
    word_s: float = 0.0
    #: Requests that it takes in `window_s`; more are answered 429. 0: any number.
    limit: int = 0
    window_s: float = 1.0
    #: Headers of a 429.
    refusal: Headers = field(default_factory=dict)
    #: Headers of an answer, given how many requests are left in the window.
    headers: Any = None
    is_down: bool = False
    #: Words after which a stream breaks off with an error; None: it does not.
    breaks_after: int | None = None


class ProviderStub:
    """Listens while its block runs."""

    def __init__(self, **behaviour: Any) -> None:
        self.does = Behaviour(**behaviour)
        #: When each request came, in seconds, and the statuses they were answered with.
        self.arrivals: list[float] = []
        self.statuses: list[int] = []
        self.asked: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def arrive(self, body: dict[str, Any]) -> tuple[int, int]:
        """Note a request; the status that it gets, and how many more are taken in this window."""
        with self._lock:
            now, does = time.monotonic(), self.does
            recent = sum(1 for at in self.arrivals if at > now - does.window_s)
            self.arrivals.append(now)
            self.asked.append(body)
            status = 503 if does.is_down else 429 if does.limit and recent >= does.limit else 200
            self.statuses.append(status)
            return status, max(0, does.limit - recent - 1)

    def most_in(self, window_s: float) -> int:
        """The most requests that came in any window of this length."""
        times, most, first = sorted(self.arrivals), 0, 0
        for last, at in enumerate(times):
            while times[first] <= at - window_s:
                first += 1
            most = max(most, last - first + 1)
        return most

    def __enter__(self) -> ProviderStub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class _Handler(BaseHTTPRequestHandler):
    stub: ProviderStub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, remaining = self.stub.arrive(body)
        does = self.stub.does
        if does.delay_s:
            time.sleep(does.delay_s)
        if status != 200:
            self._refuse(status, does.refusal if status == 429 else {})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        for name, value in (does.headers(remaining) if does.headers else {}).items():
            self.send_header(name, value)
        self.end_headers()
        speak = _messages if self.path == "/v1/messages" else _chat
        for event, piece in speak(body["model"] + does.version, does):
            if does.word_s:
                time.sleep(does.word_s)
            self.wfile.write(f"{f'event: {event}' if event else ''}\ndata: {piece}\n\n".lstrip().encode())
            self.wfile.flush()

    def _refuse(self, status: int, headers: Headers) -> None:
        text = json.dumps({"error": {"message": "no", "type": "no", "code": "no"}}).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _chat(model: str, does: Behaviour) -> Any:
    common = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model}
    for n, word in enumerate(does.words):
        if n == does.breaks_after:
            yield "", json.dumps({"error": {"message": "no", "type": "server_error", "code": None}})
            return
        choice = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
        yield "", json.dumps({**common, "choices": [choice]})
    yield "", json.dumps({**common, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 5, "completion_tokens": len(does.words), "total_tokens": 5 + len(does.words)}
    yield "", json.dumps({**common, "choices": [], "usage": usage})
    yield "", "[DONE]"


def _messages(model: str, does: Behaviour) -> Any:
    def event(kind: str, **more: Any) -> tuple[str, str]:
        return kind, json.dumps({"type": kind, **more})

    message = {"id": "m1", "type": "message", "role": "assistant", "model": model, "content": []}
    usage = {"input_tokens": 5, "output_tokens": 0}
    yield event(
        "message_start", message={**message, "stop_reason": None, "stop_sequence": None, "usage": usage}
    )
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for word in does.words:
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield event("content_block_stop", index=0)
    yield event(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": len(does.words)},
    )
    yield event("message_stop")
