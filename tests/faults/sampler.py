"""Looks at the stack at intervals: times to live of all records, and what its processes hold."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psutil
import redis

from tests.faults.world import World

#: Seconds between two looks at the keys, and between two looks at the processes.
KEYS_S, PROCESSES_S = 5.0, 15.0
MEGABYTE = 1_000_000


class Sampler:
    """Samples in a thread of its own. A context manager."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = 0.0
        while not self._stop.wait(KEYS_S):
            with suppress(redis.RedisError):
                self.keys()
            if time.monotonic() >= due:
                due = time.monotonic() + PROCESSES_S
                with suppress(redis.RedisError, psutil.Error, RuntimeError):
                    self.processes()

    def keys(self) -> None:
        """Write down the time to live of every record."""
        names = list(self.world.store.scan_iter("task:*", count=1000))
        pipe = self.world.store.pipeline(transaction=False)
        for name in names:
            pipe.pttl(name)
        self.world.history.write("ttl", at=time.time(), keys=dict(zip(names, pipe.execute(), strict=True)))

    def processes(self) -> None:
        """Write down what each process of ours holds, its children included."""
        clients = int(self.world.store.info("clients")["connected_clients"])
        connections, channels = self.world.connections()
        for name, pid in self.world.processes().items():
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            self.world.history.write(
                "resources",
                at=time.time(),
                process=name,
                rss_mb=round(sum(p.memory_info().rss for p in family) / MEGABYTE, 1),
                fds=sum(p.num_fds() for p in family),
                redis_clients=clients,
                connections=connections,
                channels=channels,
            )
