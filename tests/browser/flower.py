"""Flower as a child process."""

from __future__ import annotations

import sys
from typing import Any

import httpx

from tests.environment import Environment, new_folder, of_process
from tests.processes import Process, free_port, wait_until


class FlowerProcess(Process):
    """`celery -A textgen flower` on a port of its own; `url` is its address.

    Args:
        env: The stack's variables, and Flower's own.
        args: Options of Flower.
    """

    def __init__(self, env: Environment, *args: str) -> None:
        folder, port = new_folder("flower"), free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            [sys.executable, "-m", "celery", "-A", "textgen", "flower", f"--port={port}", *args],
            env=of_process(env),
            cwd=folder,
            log_file=folder / "log",
            ready="Visit me at",
        )

    def get(self, path: str, **extra: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=10, **extra)

    def post(self, path: str, **extra: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=10, **extra)

    def wait_for_workers(self, count: int = 1) -> None:
        """Wait until it has heard of this many workers: from then on it misses no event."""

        def heard() -> bool:
            return len(self.get("/workers?json=true").json()["data"]) >= count

        wait_until(heard, 20, f"Flower has heard of {count} workers")
