"""Answers that an SDK reads whole, which are errors and lists of models: within bounds."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2

from textgen.engines.events import MAX_BYTES


def bound(response: httpx2.Response, read_s: float) -> None:
    """Have `response` be read as it is told, and no longer than for `read_s` seconds if it is read whole.

    It was asked for without a coding: what is packed all the same could be of any size, and is not unpacked.
    """
    response.headers.pop("content-encoding", None)
    is_stream = response.is_success and response.request.method == "POST"
    if not is_stream and isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _Cut(response.stream, read_s)


class _Cut(httpx2.SyncByteStream):
    """The beginning of `stream`: what is too long or too slow ends there, and its status counts."""

    def __init__(self, stream: httpx2.SyncByteStream, read_s: float) -> None:
        self._stream = stream
        self._read_s = read_s

    def __iter__(self) -> Iterator[bytes]:
        left, give_up = MAX_BYTES, time.monotonic() + self._read_s
        for piece in self._stream:
            left -= len(piece)
            if left < 0 or time.monotonic() > give_up:
                return
            yield piece

    def close(self) -> None:
        self._stream.close()
