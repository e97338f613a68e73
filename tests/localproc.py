"""Local processes that look to pytest-celery like Docker containers.

pytest-celery's nodes wrap a container by its shape alone: id, name, status, attrs, logs, kill,
restart. `LocalProcess` has that shape over a `Process`, and `Local` mixed into pytest-celery's own
container classes answers the few questions that only a network of containers could.
"""

from __future__ import annotations

import secrets
import shlex
import signal
import subprocess
from typing import Any
from urllib.parse import urlsplit

from docker.models.containers import ExecResult
from pytest_celery import CeleryTestContainer, CeleryWorkerContainer, RabbitMQContainer, RedisContainer

from tests.processes import Process


class LocalProcess:
    """What docker-py's `Container` is to a container, for a process of this machine.

    Args:
        process: Started or not.
        url: Where it is reached, from this process and from the others alike.
        id_: The container's id, from which `%h` in a worker's name is taken.
    """

    def __init__(self, process: Process, *, url: str = "", id_: str = "") -> None:
        self.process, self.url = process, url
        self.id = id_ or new_id()
        self.name = process.log_file.parent.name
        self.labels: dict[str, str] = {}

    @property
    def status(self) -> str:
        return "running" if self.process.is_alive else "exited"

    @property
    def attrs(self) -> dict[str, Any]:
        """What pytest-docker-tools looks at: no network to wait for, and no ports to be mapped."""
        env = [f"{name}={value}" for name, value in self.process.env.items()]
        return {
            "Config": {"Hostname": urlsplit(self.url).netloc, "Env": env},
            "HostConfig": {"PortBindings": {}},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
        }

    def reload(self) -> None:
        """Nothing is cached here that could be out of date."""

    def kill(self, signal: str | int | None = None) -> None:
        """Signal the main process; with SIGKILL its children end too, as a container's would."""
        number = _number(signal)
        if number == _number("SIGKILL"):
            self.process.kill()
        else:
            self.process.signal(number)

    def restart(self, timeout: int = 10) -> None:
        """Stop it if it runs, start it again and wait for the new run to be ready."""
        if self.process.is_alive:
            self.process.stop(timeout)
        self.process.start()
        self.process.wait_ready()

    def logs(self) -> bytes:
        return self.process.log_file.read_bytes()

    def exec_run(self, command: str | list[str]) -> ExecResult:
        """Run a command in the process's environment and folder, beside it."""
        arguments = shlex.split(command) if isinstance(command, str) else command
        done = subprocess.run(arguments, env=self.process.env, cwd=self.process.cwd, capture_output=True)
        return ExecResult(done.returncode, done.stdout + done.stderr)

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self.process.wait()}

    def remove(self) -> None:
        self.process.kill()


def new_id() -> str:
    """An id as Docker gives them."""
    return secrets.token_hex(32)


def _number(given: str | int | None) -> int:
    if given is None:
        return signal.SIGKILL
    return signal.Signals[given] if isinstance(given, str) else given


class Local(CeleryTestContainer):
    """Mixin: the container is a `LocalProcess`, reached at one address from everywhere."""

    _container: LocalProcess

    @property
    def url(self) -> str:
        return self._container.url

    @property
    def host_url(self) -> str:
        return self._container.url

    @property
    def vhost(self) -> str:
        return urlsplit(self.url).path.removeprefix("/")

    def get_addr(self, port: str) -> tuple[str, int]:
        address = urlsplit(self.url)
        return address.hostname or "", address.port or 0


class LocalRabbitMQ(Local, RabbitMQContainer):
    """pytest-celery's RabbitMQ container as a local process."""


class LocalRedis(Local, RedisContainer):
    """pytest-celery's Redis container as a local process; Valkey looks the same."""


class LocalWorker(Local, CeleryWorkerContainer):
    """pytest-celery's worker container as a local process."""
