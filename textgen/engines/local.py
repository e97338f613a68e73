"""The local engine: a small model on the CPU, one per process, many requests in one batch.

llama.cpp's server runs inside the process (package xllamacpp). It takes a request by a call that
blocks and calls back with each piece, so every request has a thread of its own that feeds a pipe.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from textgen import weights
from textgen.engines.base import Chunk, Engine, EngineRequest, Finish, FinishReason
from textgen.errors import PermanentEngineError, TransientEngineError
from textgen.lifecycle import Usage
from textgen.settings import Settings

#: Seconds without any sign of life from the runtime after which an attempt is given up.
SILENCE_S = 120.0
#: Seconds between two looks into the pipe under gevent, whose greenlets no native thread can wake.
GEVENT_LOOK_S = 0.003


class LocalEngine(Engine):
    """Generates with a GGUF model through llama.cpp."""

    name = "local"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.path = weights.model_path(settings)
        self.model = self.path.stem.lower()
        self._server: Any = None
        self._slots = threading.BoundedSemaphore(settings.concurrency)

    @classmethod
    def missing(cls, settings: Settings) -> str | None:
        if importlib.util.find_spec("xllamacpp") is None:
            return 'The local engine needs its runtime: pip install "textgen[local]".'
        if not weights.is_present(settings):
            path = weights.model_path(settings)
            return f"The local engine needs a model, and there is none at {path}: textgen fetch-model."
        return None

    def setup(self) -> None:
        reason = self.missing(self.settings)
        if reason:
            raise PermanentEngineError(reason)
        import xllamacpp

        try:
            self._server = xllamacpp.Server(self._parameters(xllamacpp.CommonParams()))
        except RuntimeError as exc:
            raise PermanentEngineError(f"the model file {self.path} cannot be loaded ({exc})") from exc

    def _parameters(self, params: Any) -> Any:
        """One slot for each task that may run at once, each with its share of the context."""
        slots = self.settings.concurrency
        params.model.path = str(self.path)
        params.n_parallel = slots
        params.n_ctx = self.settings.local_context * slots
        # Threads of several engine processes that outnumber the cores slow each other eight-fold.
        threads = max(1, (os.cpu_count() or 1) // self.settings.workers)
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.cache_ram_mib = 0  # its default keeps every prompt, 8 MB a request
        params.verbosity = 0
        # The server opens a loopback port whether wanted or not: let nobody in.
        params.api_keys = [secrets.token_hex(32)]
        params.ui = False
        params.endpoint_slots = False
        return params

    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        if request.model and request.model != self.model:
            raise PermanentEngineError(f"the local engine has the model {self.model!r} and no other")
        with self._slots_free():
            call = _Call(self._server, self._body(request), self._slots)
        reason, usage, prompt_tokens = "stop", Usage(), None
        try:
            for piece in call.pieces():
                if "error" in piece:
                    raise _error(piece["error"])
                if piece.get("usage"):
                    usage = _usage(piece["usage"])
                prompt_tokens = piece.get("prompt_progress", {}).get("total", prompt_tokens)
                for choice in piece.get("choices", ()):
                    text = choice.get("delta", {}).get("content")
                    if text:
                        yield Chunk(text, prompt_tokens=prompt_tokens)
                    reason = choice.get("finish_reason") or reason
        finally:
            call.cancel()
        yield Finish(_reason(reason), usage, self.model)

    def _slots_free(self) -> _Held:
        """Wait for a slot: what the runtime queues itself cannot be cancelled."""
        return _Held(self._slots)

    def _body(self, request: EngineRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": list(request.messages),
            "max_tokens": request.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            # Signs of life while the prompt is read, at which a cancel can act.
            "return_progress": True,
        }
        chosen = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": list(request.stop) or None,
        }
        return body | {name: value for name, value in chosen.items() if value is not None}


class _Held:
    """Holds a slot until a call has taken it over."""

    def __init__(self, slots: threading.Semaphore) -> None:
        self.slots = slots

    def __enter__(self) -> None:
        self.slots.acquire()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.slots.release()


class _Call:
    """One request to the runtime: a native thread on one side, an iterator on the other."""

    def __init__(self, server: Any, body: dict[str, Any], slots: threading.Semaphore) -> None:
        self._server = server
        self._body = body
        self._slots = slots
        self._pieces: deque[dict[str, Any] | None] = deque()
        self._cancelled = False
        self._failure: Exception | None = None
        start, self._news = _native_threading()
        start(self._run, ())

    def cancel(self) -> None:
        """Have the runtime stop at its next sign of life."""
        self._cancelled = True

    def _run(self) -> None:
        try:
            answer = self._server.handle_chat_completions(self._body, self._take)
            if isinstance(answer, dict):
                self._put(answer)
        except (ValueError, RuntimeError) as exc:
            self._failure = exc
        finally:
            self._put(None)
            self._slots.release()

    def _take(self, piece: Any) -> bool:
        """Called by the runtime; returning True stops it. It swallows exceptions, so none is raised."""
        if isinstance(piece, dict):
            self._put(piece)
        return self._cancelled

    def _put(self, piece: dict[str, Any] | None) -> None:
        self._pieces.append(piece)
        if self._news is not None:
            self._news.set()

    def pieces(self) -> Iterator[dict[str, Any]]:
        """What the runtime says, as it comes."""
        silent_since = time.monotonic()
        while True:
            if self._pieces:
                silent_since = time.monotonic()
                piece = self._pieces.popleft()
                if piece is None:
                    break
                yield piece
            elif time.monotonic() - silent_since > SILENCE_S:
                raise TransientEngineError(f"the local model has said nothing for {SILENCE_S:.0f} s")
            elif self._news is None:
                time.sleep(GEVENT_LOOK_S)
            else:
                self._news.wait(1.0)
                self._news.clear()
        if self._failure is not None:
            raise PermanentEngineError(f"the local model refuses the request: {self._failure}")


def _native_threading() -> tuple[Any, threading.Event | None]:
    """How to start a thread of the OS, and an event to wait on, which gevent's patches lack."""
    import sys

    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return monkey.get_original("_thread", "start_new_thread"), None
    import _thread

    return _thread.start_new_thread, threading.Event()


def _error(error: dict[str, Any]) -> PermanentEngineError | TransientEngineError:
    if error.get("type") == "exceed_context_size_error":
        return PermanentEngineError(
            f"the prompt has {error.get('n_prompt_tokens')} tokens, over the model's limit of "
            f"{error.get('n_ctx')} for prompt and answer together"
        )
    message = f"the local model answered with an error of type {error.get('type', 'unknown')}"
    return PermanentEngineError(message) if error.get("code") == 400 else TransientEngineError(message)


def _usage(usage: dict[str, Any]) -> Usage:
    return Usage(int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))


def _reason(reason: str) -> FinishReason:
    return "length" if reason == "length" else "stop"
