"""The local engine: a small model on the CPU, one per process, many requests in one batch.

llama.cpp's server runs inside the process (package xllamacpp). It takes a request by a call that
blocks and calls back with each piece: `textgen.engines.call` turns that into an iterator.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from textgen import weights
from textgen.engines import chat
from textgen.engines.base import PULSE, Chunk, Engine, EngineRequest, Finish
from textgen.engines.call import PULSE_S, Call
from textgen.engines.native import Mailbox
from textgen.errors import EngineUnusable, PermanentEngineError, TransientEngineError
from textgen.lifecycle import Usage
from textgen.settings import Settings

log = structlog.get_logger(__name__)

#: Tokens of prompts read in one step. Between steps the other texts go on and a cancel can act: the
#: runtime's own 2048 holds up both for seconds, and is no faster.
STEP_TOKENS = 128
#: Seconds that the end of the process waits for running calls to stop.
CLOSE_S = 5.0
#: The largest seed: llama.cpp takes 2^32 - 1 as "choose one" (LLAMA_DEFAULT_SEED).
MAX_SEED = 2**32 - 2


class LocalEngine(Engine):
    """Generates with a GGUF model through llama.cpp."""

    name = "local"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.path = weights.model_path(settings)
        self.model = self.path.stem.lower()
        self._server: Any = None
        #: What the runtime queues itself cannot be cancelled, so it never gets more than its slots.
        self._slots: Mailbox[bool] = Mailbox()
        self._closed = False
        for _ in range(settings.concurrency):
            self._slots.put(True)

    @classmethod
    def missing(cls, settings: Settings) -> str | None:
        if importlib.util.find_spec("xllamacpp") is None:
            return 'The local engine needs its runtime: pip install "textgen[local]".'
        if not weights.is_present(settings):
            path = weights.model_path(settings)
            return f"The local engine needs a model, and there is none at {path}: textgen fetch-model."
        return None

    @classmethod
    def default_model(cls, settings: Settings) -> str | None:
        return weights.model_path(settings).stem.lower()

    def models(self) -> list[str]:
        return [self.model]

    def setup(self) -> None:
        reason = self.missing(self.settings)
        if reason:
            raise EngineUnusable(reason)
        try:
            import xllamacpp
        except ImportError as exc:
            raise EngineUnusable(f"the runtime of the local engine does not load: {exc}") from exc
        before = _resident_mib()
        params = self._parameters(xllamacpp.CommonParams())
        try:
            self._server = xllamacpp.Server(params)  # which reads the whole file, and tries it out
        except RuntimeError as exc:
            raise EngineUnusable(f"the model file {self.path} cannot be loaded ({exc})") from exc
        atexit.register(self._close, os.getpid())
        log.info(
            "local model loaded",
            model=self.model,
            slots=params.n_parallel,
            context_of_each=self.settings.local_context,
            context=params.n_ctx,
            threads=params.cpuparams.n_threads,
            memory_mib=f"{before} before, {_resident_mib()} after",
        )

    def _close(self, pid: int) -> None:
        """Stop all calls: one that outlives the interpreter brings the process down with a crash."""
        self._closed = True
        give_up = time.monotonic() + CLOSE_S
        for _ in range(self.settings.concurrency if os.getpid() == pid else 0):
            self._slots.take(max(0.0, give_up - time.monotonic()))

    def _parameters(self, params: Any) -> Any:
        """One slot for each task that may run at once, each with its share of the context."""
        slots = self.settings.concurrency
        params.model.path = str(self.path)
        params.n_parallel = slots
        params.n_ctx = self.settings.local_context * slots
        params.n_batch = params.n_ubatch = max(STEP_TOKENS, slots)
        # Threads of several engine processes that outnumber the cores slow each other eight-fold.
        threads = max(1, _cores() // self.settings.workers)
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
            raise EngineUnusable(f"the local engine has the model {self.model!r} and no other")
        body = _body(request)
        while not self._slots.take(PULSE_S):
            yield PULSE
        call = Call(self._server, body, self._slots, lambda: self._closed)
        try:
            yield from _read(call, self.model)
        finally:
            call.cancel()


def _resident_mib() -> int | None:
    """Memory of this process; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def _body(request: EngineRequest) -> dict[str, Any]:
    """The request as the runtime takes it: OpenAI's chat completion with llama.cpp's additions."""
    body: dict[str, Any] = {
        "messages": list(request.messages),
        "max_tokens": request.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        # Signs of life while the prompt is read, at which a cancel can act.
        "return_progress": True,
        # A character may take several tokens: this tells how many a piece stands for.
        "timings_per_token": True,
        # A model that thinks aloud would otherwise do so outside the text.
        "reasoning_format": "none",
        # What was computed in other batches need not be the same to the last bit.
        "cache_prompt": request.seed is None and request.temperature != 0,
    }
    chosen = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": None if request.seed is None else min(request.seed, MAX_SEED),
        "stop": list(request.stop) or None,
        "response_format": chat.format_of(request),
    }
    return body | {name: value for name, value in chosen.items() if value is not None}


def _read(call: Call, model: str) -> Iterator[Chunk | Finish]:
    """Translate what the runtime says."""
    reason, usage, tokens, prompt_tokens = None, Usage(), 0, None
    for piece in call.pieces():
        if "error" in piece:
            raise _error(piece["error"])
        if piece.get("usage"):
            usage = _used(piece["usage"])
        prompt_tokens = (piece.get("prompt_progress") or {}).get("total", prompt_tokens)
        choice: dict[str, Any] = next(iter(piece.get("choices", ())), {})
        reason = choice.get("finish_reason") or reason
        text = choice.get("delta", {}).get("content")
        if text:
            so_far = (piece.get("timings") or {}).get("predicted_n", tokens + 1)
            yield Chunk(_valid(text), so_far - tokens, prompt_tokens)
            tokens = so_far
        elif reason is None:
            yield PULSE
    if reason is None:
        raise TransientEngineError("the local model broke off")
    yield Finish("length" if reason == "length" else "stop", usage, model)


def _used(told: dict[str, Any]) -> Usage:
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(told["prompt_tokens"], told["completion_tokens"], cached_tokens=cached)


def _valid(text: str) -> str:
    """`text` without lone surrogates, which Redis could not carry."""
    return text.encode(errors="replace").decode()


def _error(error: dict[str, Any]) -> PermanentEngineError | TransientEngineError:
    if error.get("type") == "exceed_context_size_error":
        return EngineUnusable(
            f"the prompt has {error.get('n_prompt_tokens')} tokens, over the model's limit of "
            f"{error.get('n_ctx')} for prompt and answer together"
        )
    kind = PermanentEngineError if error.get("code") == 400 else TransientEngineError
    return kind(f"the local model answered with an error of type {error.get('type', 'unknown')}")


def _cores() -> int:
    """The cores that this process may use, fewer than the machine's in a pinned container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
