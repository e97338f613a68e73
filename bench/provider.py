"""A stand-in for a provider: streams Chat Completions of a set length from a process of its own.

    python -m bench.provider PORT [--slots 200] [--seconds 1] [--pieces 10]

It is cheap on purpose, so that a benchmark measures what asks it: one loop, every byte made beforehand.
What comes while all slots are taken is answered 429. `GET /` says how many it served and refused, and
how many at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(choice: dict[str, object], **more: object) -> bytes:
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "stub"}
    body |= {"choices": [{"index": 0, "finish_reason": None, **choice}] if choice else [], **more}
    return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = _event({"delta": {"content": "word "}})
END = _event({"delta": {}, "finish_reason": "stop"})
DONE = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
FULL = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}"


class Stub:
    """What all connections share: the plan of an answer, and the counts."""

    def __init__(self, slots: int, seconds: float, pieces: int) -> None:
        self.slots, self.seconds, self.pieces = slots, seconds, pieces
        self.end = END + _event({}, usage=_usage(pieces)) + DONE
        self.counts = {"served": 0, "refused": 0, "connections": 0, "at_once": 0}
        self.running = 0


class Connection(asyncio.Protocol):
    """One client's connection, kept between requests."""

    def __init__(self, stub: Stub) -> None:
        self.stub, self.received = stub, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport
        self.stub.counts["connections"] += 1

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self.received = b""
        if head.startswith(b"POST"):
            self._answer()
        else:
            counts = json.dumps(self.stub.counts).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(counts) + counts)

    def _answer(self) -> None:
        stub = self.stub
        if stub.running >= stub.slots:
            stub.counts["refused"] += 1
            self.transport.write(FULL)
            return
        stub.running += 1
        stub.counts["at_once"] = max(stub.counts["at_once"], stub.running)
        loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        self.transport.write(HEAD)
        for n in range(stub.pieces):
            loop.call_at(began + stub.seconds * (n + 1) / (stub.pieces + 1), self.transport.write, PIECE)
        loop.call_at(began + stub.seconds, self._end)

    def _end(self) -> None:
        self.stub.running -= 1
        self.stub.counts["served"] += 1
        self.transport.write(self.stub.end)


async def serve(port: int, stub: Stub) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(stub), "127.0.0.1", port, backlog=1024
    )
    print("listens", flush=True)
    await server.serve_forever()


def main() -> None:
    options = argparse.ArgumentParser(description="Stream answers of a set length.")
    options.add_argument("port", type=int)
    options.add_argument("--slots", type=int, default=200)
    options.add_argument("--seconds", type=float, default=1.0)
    options.add_argument("--pieces", type=int, default=10)
    chosen = options.parse_args()
    asyncio.run(serve(chosen.port, Stub(chosen.slots, chosen.seconds, chosen.pieces)))


if __name__ == "__main__":
    main()
