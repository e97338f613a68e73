"""Clients that go on submitting, reading and cancelling while faults are done to the stack."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import redis

from tests.faults.world import World

#: Submits a second, at moments that are as random as those of independent clients.
RATE = 4.0
#: Submits that may be waiting for their answer at the same time.
CLIENTS = 60
#: Shares of submits that are cancelled, that are sent twice under one key, and that are read at once.
CANCELLED, REPEATED, READ = 0.03, 0.05, 0.1
#: Share that somebody else tries to read.
PRIED = 0.05
#: Share of submits that come from Python, and how.
PYTHON, WAYS = 0.1, ("delay", "group", "chain")
#: Share of prompts up to each size in characters.
SIZES = ((0.80, 1_000), (0.95, 16_000), (1.0, 64_000))
#: Seconds between two looks at what has ended.
LOOK_S = 0.2
#: Seconds over which a rate is taken.
WINDOW_S = 3.0


class Traffic:
    """Offers tasks at a steady rate. A context manager."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.choice = random.Random(world.choice.random())
        #: Id → when it was accepted, of what has not ended.
        self.open: dict[str, float] = {}
        #: When each task that ended was accepted, and ended.
        self.ended: list[tuple[float, float]] = []
        self.cancelled: set[str] = set()
        self._offers, self._looks = threading.Event(), threading.Event()
        self._clients = ThreadPoolExecutor(CLIENTS, "client")
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._offer, self._look)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop_offering()
        self._looks.set()
        for thread in self._threads:
            thread.join()

    def stop_offering(self) -> None:
        """Offer no more, and wait for the answers that are due."""
        self._offers.set()
        self._clients.shutdown(wait=True)

    def flow(self, over_s: float = WINDOW_S) -> tuple[float, float]:
        """Tasks a second that were accepted in the last seconds but one, and that ended since."""
        now = time.time()
        accepted = [(began, end) for began, end in list(self.ended) if now - over_s - 1 <= began < now - 1]
        waiting = [began for began in list(self.open.values()) if now - over_s - 1 <= began < now - 1]
        return (len(accepted) + len(waiting)) / over_s, len(accepted) / over_s

    def backlog(self) -> int:
        """Tasks that were accepted more than a moment ago and have not ended."""
        before = time.time() - 1.0
        return sum(1 for at in list(self.open.values()) if at < before)

    def _offer(self) -> None:
        while not self._offers.wait(self.choice.expovariate(RATE)):
            kind, size = self.choice.random(), self.choice.random()
            chars = next(limit for share, limit in SIZES if size <= share)
            if self.choice.random() < PYTHON:
                self._clients.submit(self._python, self.choice.choice(WAYS))
                continue
            prompt = "x" * self.choice.randrange(chars // 4, chars)
            self._clients.submit(self._client, kind, prompt, f"key{self.choice.getrandbits(64):x}")

    def _python(self, way: str) -> None:
        answer = self.world.delay(way)
        if answer.id:
            self.open[answer.id] = time.time()

    def _client(self, kind: float, prompt: str, key: str) -> None:
        op = self.world.op()
        repeats = kind < REPEATED
        mock = {"delay_s": 0.02, "tokens": 3}
        first = self.world.submit(op, prompt=prompt, mock=mock, key=key if repeats else None)
        if repeats:
            again = self.world.submit(op, prompt=prompt, mock=mock, key=key)
            first = first if first.id else again
        if first.id is None:
            return
        self.open[first.id] = time.time()
        if REPEATED <= kind < REPEATED + CANCELLED:
            if self.world.cancel(first.id) == 200:
                self.cancelled.add(first.id)
        elif kind > 1 - READ:
            self.world.read(first.id)
        elif kind > 1 - READ - PRIED:
            self.world.pry(first.id)

    def _look(self) -> None:
        while not self._looks.wait(LOOK_S):
            with suppress(redis.RedisError):
                self._close(list(self.open))

    def _close(self, ids: list[str]) -> None:
        texts = self.world.store.mget([f"task:{i}" for i in ids]) if ids else []
        for task_id, text in zip(ids, texts, strict=True):
            if self._is_over(task_id, text):
                self.ended.append((self.open.pop(task_id), time.time()))

    def _is_over(self, task_id: str, text: str | None) -> bool:
        if text is not None:
            return json.loads(text)["status"] in TERMINAL
        # its record was wiped: what had ended before does not come back
        if self.open[task_id] < self.world.lost_at:
            return True
        was_wiped = self.open[task_id] < self.world.emptied_at
        return was_wiped and bool(
            task_id in self.cancelled or self.world.lines("run", id=task_id, step="end")
        )


TERMINAL = ("COMPLETED", "FAILED", "CANCELLED")
