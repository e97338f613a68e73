"""Server-sent events out of the bytes of an answer, each of a size that can be held.

The SDKs' own readers know no bounds, and say nothing while no event comes: a server that keeps a stream
open with comments would keep its reader for ever.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx2

#: Bytes of one event; a whole text of 100,000 tokens in one has about half a million.
MAX_BYTES = 4_000_000


def read(pieces: Iterable[bytes], silence_s: float) -> Iterator[dict[str, Any]]:
    """The data of each event until `[DONE]`; an empty one for bytes that end none.

    Lines end with LF or CRLF, as all providers have them.

    Raises:
        ValueError, RecursionError: An event is no JSON, or too long.
        httpx2.ReadTimeout: No event came for `silence_s` seconds, whatever else did.
    """
    line, data = bytearray(), []
    size, heard = 0, time.monotonic()
    for piece in pieces:
        *ends, rest = piece.split(b"\n")
        size, is_event = size + len(piece), False
        for end in ends:
            if line:
                end = bytes(line + end)
                line.clear()
            if end.startswith(b"data:"):
                data.append(end[5:])
            elif data and end in (b"", b"\r"):
                told = b"\n".join(data).strip()
                data.clear()
                if told == b"[DONE]":
                    return
                yield json.loads(told.decode()) if told else {}
                is_event = True
        line += rest
        if is_event:
            size, heard = len(rest), time.monotonic()
            continue
        if size > MAX_BYTES:
            raise ValueError("the event is too long")
        if time.monotonic() - heard > silence_s:
            raise httpx2.ReadTimeout("no event")
        yield {}
