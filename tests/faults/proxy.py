"""A TCP proxy on loopback whose connections can be cut, frozen and slowed down."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from tests.processes import free_port

#: Bytes that are passed on at a time.
BLOCK = 16_384


class Proxy:
    """Passes the connections to its port on to another one. A context manager; runs in a thread.

    Args:
        target: The port of the loopback address that it stands in front of.
    """

    def __init__(self, target: int) -> None:
        self.target, self.port = target, free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._flows = asyncio.Event()
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *exc: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Keep connections, accept new ones, and let no byte through: a network that swallows all."""
        self._loop.call_soon_threadsafe(self._flows.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flows.set)

    @contextmanager
    def slow(self, delay_s: float, bytes_per_s: float) -> Iterator[None]:
        """Let each block through after a delay, and no more than so many bytes a second."""
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s
        try:
            yield
        finally:
            self._delay_s = self._bytes_per_s = 0.0

    def cut(self) -> None:
        """Close every connection."""
        self._do(self._cut())

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _listen(self) -> None:
        self._flows.set()
        await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _end(self) -> None:
        self._flows.set()
        flows = asyncio.all_tasks() - {asyncio.current_task()}
        await self._cut()
        if flows:
            await asyncio.wait(flows, timeout=5)

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._flows.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(far_writer)
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while block := await reader.read(BLOCK):
                await self._flows.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s + len(block) / self._bytes_per_s)
                writer.write(block)
                await writer.drain()
        with suppress(OSError):
            writer.close()
