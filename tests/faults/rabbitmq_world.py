"""A stack on a RabbitMQ and a Redis of its own, with a proxy in front of each way to the broker."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.browser.flower import FlowerProcess
from tests.environment import of_process
from tests.faults.proxy import Proxy
from tests.faults.world import World, is_running
from tests.processes import Process, wait_until
from tests.programs import WebProcess, WorkerProcess
from tests.services import PrivateRabbitMQ, PrivateRedis


class ServedRedis(PrivateRedis):
    """A Redis as most are run: its append-only file written through each second.

    It ignores SIGXFSZ, so that a limit on the size of its files is to it what a full disk is.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, config=("appendfsync everysec",))
        self.process.command = ["sh", "-c", 'trap "" XFSZ; exec "$@"', "sh", *self.process.command]

    def lose_data(self) -> None:
        """Delete what it would load at its next start."""
        for path in self.folder.glob("appendonlydir/*"):
            path.unlink()


class RabbitMQWorld(World):
    """RabbitMQ, Redis, a worker with threads, one with child processes, gunicorn and Flower."""

    kind = "rabbitmq"

    def start(self) -> None:
        self._stack = ExitStack()
        self.broker = self._stack.enter_context(PrivateRabbitMQ(self.folder / "rabbitmq"))
        self.redis = self._stack.enter_context(ServedRedis(self.folder / "redis"))
        self.store = self.redis.client()
        self.web_proxy = self._stack.enter_context(Proxy(self.broker.port))
        self.worker_proxy = self._stack.enter_context(Proxy(self.broker.port))
        self._environments()
        self.enter(of_process(self.web_env))
        self.workers = {
            f"{pool}@localhost": self._stack.enter_context(
                WorkerProcess(self.worker_env, pool, slots, name=pool, cwd=self.folder)
            )
            for pool, slots in (("threads", 4), ("prefork", 3))
        }
        self.web = self._stack.enter_context(WebProcess(self.web_env, 2, cwd=self.folder))
        self.flower = self._stack.enter_context(FlowerProcess(self.env))
        self.url, self.flower_url = self.web.url, self.flower.url
        self.ensure()

    def _environments(self) -> None:
        at = f"amqp://guest:guest@127.0.0.1:{self.broker.port}/"
        self.env = {**self.variables, "CELERY_BROKER_URL": at, "REDIS_URL": self.redis.url}
        port = str(self.broker.port)
        self.web_env = self.env | {"CELERY_BROKER_URL": at.replace(port, str(self.web_proxy.port))}
        self.worker_env = self.env | {"CELERY_BROKER_URL": at.replace(port, str(self.worker_proxy.port))}

    def stop(self) -> None:
        self._stack.close()

    def nodes(self) -> dict[str, str]:
        return {node: node.partition("@")[0] for node, worker in self.workers.items() if is_running(worker)}

    def pid_of(self, node: str) -> int:
        return self.workers[node].pid

    def worker(self, pool: str) -> WorkerProcess:
        """The worker of a pool."""
        return self.workers[f"{pool}@localhost"]

    def ensure(self) -> None:
        servers: tuple[Any, ...] = (self.broker, self.redis)
        for server in servers:
            if not is_running(server.process):
                server.start()
        for process in (*self.workers.values(), self.web, self.flower):
            if not is_running(process):
                process.start()
        for worker in self.workers.values():
            worker.wait_ready()
        self.web.wait_ready()

    def kill_store(self, lose_data: bool = False) -> None:
        self.redis.kill()
        if lose_data:
            self.redis.lose_data()

    def start_store(self) -> None:
        self.redis.start()

    @property
    def store_pid(self) -> int:
        return self.redis.process.pid

    def extra_worker(self, prefix: tuple[str, ...] = (), **variables: str) -> WorkerProcess:
        """One more worker, not started."""
        worker = WorkerProcess(self.worker_env | variables, "threads", 2, cwd=self.folder)
        worker.command = [*prefix, *worker.command]
        return worker

    def restart_servers(self) -> None:
        """Stop and start broker and store, one after the other."""
        self.broker.stop()
        self.broker.start()
        self.redis.stop()
        self.redis.start()

    def connections(self) -> tuple[int, int | None]:
        rows = self.broker.ctl("list_connections", "-q", "--no-table-headers", "channels").split()
        return len(rows), sum(map(int, rows))

    def queue_depths(self) -> dict[str, int]:
        return self.broker.queues("/")

    def logs(self) -> list[Path]:
        processes: list[Process] = [*self.workers.values(), self.web, self.flower, self.broker.process]
        return [*(process.log_file for process in processes), self.redis.process.log_file]

    def processes(self) -> dict[str, int]:
        """Name → main process, of what is ours."""
        ours = {**self.workers, "web": self.web}
        return {name: process.pid for name, process in ours.items() if process.is_alive}

    def web_processes(self) -> list[int]:
        """The processes of gunicorn that answer, without their parent."""
        return children(self.web.pid)


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that live."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(found.exists, 5, f"process {pid} runs")
    return [int(child) for child in found.read_text().split() if os.path.exists(f"/proc/{child}")]
