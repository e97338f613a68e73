"""A stack as `textgen up` starts it: Valkey is broker and store, the supervisor restarts what dies."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import redis

from tests.environment import of_process
from tests.faults.rabbitmq_world import children
from tests.faults.world import LANES, World, is_running
from tests.processes import Process, wait_until
from tests.programs import WorkerProcess

TEXTGEN = Path(sys.executable).with_name("textgen")


class EmbeddedWorld(World):
    """`textgen up` with two workers, and one more worker with child processes at the same stack."""

    kind = "embedded"

    def start(self) -> None:
        self._stack = ExitStack()
        self.state_dir = self.folder / "stack"
        command = [str(TEXTGEN), "up", "--json", "--state-dir", str(self.state_dir), "--engine", "ledger"]
        command += ["--workers", "2", "--concurrency", "4", "--port", "0", "--flower-port", "0"]
        self.up = Process(
            command,
            env=of_process(self.variables),
            cwd=self.folder,
            log_file=self.folder / "up.log",
            ready='"broker_url"',
        )
        self._stack.callback(self._down)
        self.up.start().wait_ready(90)
        line = next(text for text in self.up.log().splitlines() if '"broker_url"' in text)
        self.address: dict[str, Any] = json.loads(line)
        self.url, self.flower_url = self.address["web"], self.address["flower"]
        self.store = redis.Redis.from_url(self.address["redis_url"], decode_responses=True)
        self.env = self.variables | {
            "CELERY_BROKER_URL": self.address["broker_url"],
            "REDIS_URL": self.address["redis_url"],
        }
        self.enter(of_process(self.env))
        self.prefork = self._stack.enter_context(
            WorkerProcess(self.env, "prefork", 3, name="prefork", cwd=self.folder)
        )
        self.ensure()

    def _down(self) -> None:
        self.up.signal(signal.SIGTERM)
        try:
            self.up.wait(60)
        finally:
            self.up.kill()

    def stop(self) -> None:
        self._stack.close()

    def rows(self) -> dict[str, dict[str, Any]]:
        """Name → what the supervisor says of that process."""
        state = json.loads((self.state_dir / "stack.json").read_text())
        return {row["name"]: row for row in state["processes"]}

    def nodes(self) -> dict[str, str]:
        found = {
            f"{node}": "threads"
            for name, node in self._node_names().items()
            if psutil.pid_exists(self.rows()[name]["pid"] or 0)
        }
        return found | ({"prefork@localhost": "prefork"} if is_running(self.prefork) else {})

    def _node_names(self) -> dict[str, str]:
        host = os.uname().nodename
        return {f"worker-{n}": f"worker-{n}-{self.up.pid}@{host}" for n in (1, 2)}

    def pid_of(self, node: str) -> int:
        if node == "prefork@localhost":
            return self.prefork.pid
        name = next(name for name, known in self._node_names().items() if known == node)
        return int(self.rows()[name]["pid"] or 0)

    def ensure(self) -> None:
        if not is_running(self.prefork):
            self.prefork.start()
        wait_until(lambda: all(r["state"] == "running" for r in self.rows().values()), 60, "all run again")
        self.prefork.wait_ready()
        from textgen.celery import app

        expected = set(self.nodes())
        with app.connection_for_write() as connection:
            wait_until(lambda: expected <= self._answering(connection), 60, f"{expected} answer")

    @staticmethod
    def _answering(connection: Any) -> set[str]:
        from textgen.celery import app

        answers = app.control.ping(timeout=1, connection=connection) or []
        return {node for answer in answers for node in answer}

    def kill_store(self, lose_data: bool = False) -> None:
        os.kill(self.store_pid, signal.SIGKILL)

    def lose_data(self) -> None:
        """Delete what the server would load at its next start."""
        for path in self.state_dir.glob("valkey/appendonlydir/*"):
            path.unlink()

    def start_store(self) -> None:
        """The supervisor does."""

    @property
    def store_pid(self) -> int:
        return int(self.rows()["valkey"]["pid"])

    def extra_worker(self, prefix: tuple[str, ...] = (), **variables: str) -> WorkerProcess:
        """One more worker, not started."""
        worker = WorkerProcess(self.env | variables, "threads", 2, cwd=self.folder)
        worker.command = [*prefix, *worker.command]
        return worker

    def queue_depths(self) -> dict[str, int]:
        broker = redis.Redis.from_url(self.address["broker_url"], decode_responses=True)
        found = {"unacked": int(broker.hlen("unacked"))}
        for lane in LANES:
            found[lane] = sum(broker.llen(name) for name in broker.scan_iter(f"{lane}*") if _of(name, lane))
        return found

    def logs(self) -> list[Path]:
        return [self.up.log_file, self.prefork.log_file, *self.state_dir.glob("**/*.log*")]

    def connections(self) -> tuple[int, int | None]:
        return len(self.store.client_list()), None

    def processes(self) -> dict[str, int]:
        """Name → main process, of what is ours."""
        return {name: row["pid"] for name, row in self.rows().items() if row["pid"] and name != "valkey"}

    def web_processes(self) -> list[int]:
        """The processes of gunicorn that answer, without their parent."""
        return children(int(self.rows()["web"]["pid"]))


def _of(name: str, lane: str) -> bool:
    """Whether a list is the lane's: its name alone, or with a priority behind it."""
    return name == lane or name.startswith(f"{lane}\x06\x16")
