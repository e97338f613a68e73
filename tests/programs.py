"""Our own programs as child processes: a Celery worker and the web app."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx

from tests.environment import Environment, new_folder, of_process
from tests.processes import Process, free_port, wait_until


class WorkerProcess(Process):
    """`celery -A textgen worker`, named `<name>@localhost`."""

    def __init__(
        self,
        env: Environment,
        pool: str = "threads",
        concurrency: int = 4,
        *,
        args: tuple[str, ...] = (),
        name: str = "",
        cwd: Path | None = None,
        python: str = sys.executable,
    ) -> None:
        folder = new_folder(f"worker-{pool}")
        self.name = name or folder.name
        command = [python, "-m", "celery", "-A", "textgen", "worker", "-l", "INFO"]
        command += ["--pool", pool, "-c", str(concurrency), "-n", f"{self.name}@localhost"]
        super().__init__(
            [*command, "--without-mingle", "--without-gossip", *args],
            env=of_process(env),
            cwd=cwd or folder,
            log_file=folder / "log",
            ready=f"{self.name}@localhost ready",
        )


class WebProcess(Process):
    """`gunicorn web:app` on a port of its own; `url` is its address."""

    def __init__(
        self, env: Environment, workers: int = 1, *, cwd: Path | None = None, python: str = sys.executable
    ) -> None:
        folder, port = new_folder("web"), free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            python,
            "-m",
            "gunicorn",
            "--config",
            "python:textgen.webserver",
            "--workers",
            str(workers),
        ]
        command += ["--bind", f"127.0.0.1:{port}"]
        super().__init__(
            [*command, "web:app"], env=of_process(env), cwd=cwd or folder, log_file=folder / "log"
        )

    def answers(self) -> bool:
        """Whether it is alive and serves."""
        if not self.is_alive:
            raise AssertionError(f"gunicorn ended ({self.returncode}):\n{self.log()}")
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).is_success
        except httpx.TransportError:
            return False

    def wait_ready(self, timeout_s: float = 30) -> WebProcess:
        """Wait until it answers."""
        wait_until(self.answers, timeout_s, f"{self.url}/healthz answers; its log is {self.log_file}")
        return self
