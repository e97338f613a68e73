"""Broker, backend and worker as local processes, under the names of pytest-celery's containers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_celery import RabbitMQContainer, RedisContainer

from tests.arrangement import Arrangement, TextgenWorker
from tests.environment import Environment, new_folder, of_process
from tests.localproc import LocalProcess, LocalRabbitMQ, LocalRedis, LocalWorker, new_id
from tests.processes import Process
from tests.services import PrivateValkey


@dataclass(frozen=True)
class LocalServers:
    """The two servers of an arrangement."""

    broker: LocalProcess
    store: LocalProcess


class LocalTextgenWorker(LocalWorker, TextgenWorker):
    """Our worker as a local process."""


@pytest.fixture(scope="module")
def local_servers(request: pytest.FixtureRequest, arrangement: Arrangement) -> Iterator[LocalServers]:
    """Servers with nothing in them, for as long as the module runs in this arrangement."""
    if arrangement.kind == "valkey":
        with PrivateValkey(new_folder("valkey")) as server:
            broker, store = (LocalProcess(server.process, url=server.url_of(n)) for n in (1, 0))
            yield LocalServers(broker, store)
    else:
        rabbitmq, redis = (request.getfixturevalue(name) for name in ("rabbitmq", "redis_server"))
        yield LocalServers(
            LocalProcess(rabbitmq.process, url=rabbitmq.url_of(rabbitmq.new_vhost())),
            LocalProcess(redis.process, url=redis.url_of(redis.new_database())),
        )


@pytest.fixture
def default_rabbitmq_broker(local_servers: LocalServers) -> RabbitMQContainer:
    return LocalRabbitMQ(local_servers.broker)


@pytest.fixture
def default_redis_broker(local_servers: LocalServers) -> RedisContainer:
    return LocalRedis(local_servers.broker)


@pytest.fixture
def default_redis_backend(local_servers: LocalServers) -> RedisContainer:
    return LocalRedis(local_servers.store)


@pytest.fixture(scope="module")
def kept_workers(arrangement: Arrangement) -> Iterator[list[LocalProcess]]:
    """The worker that the module's tests share, once one of them has asked for it."""
    kept: list[LocalProcess] = []
    yield kept
    for worker in kept:
        worker.remove()


@pytest.fixture
def default_worker_container(
    kept_workers: list[LocalProcess], default_worker_command: list[str], default_worker_env: Environment
) -> LocalWorker:
    if not kept_workers:
        kept_workers.append(_local_worker(default_worker_command, default_worker_env))
    if kept_workers[0].status != "running":
        kept_workers[0].restart()
    return LocalTextgenWorker(kept_workers[0])


def _local_worker(command: list[str], env: Environment) -> LocalProcess:
    folder, id_ = new_folder("celery-worker"), new_id()
    programs = Path(sys.executable).parent
    # a container's host name is the beginning of its id, and is what Celery puts for %h
    program, *arguments = (part.replace("%h", id_[:12]) for part in command)
    process = Process(
        [program, *arguments],
        env=of_process(env) | {"PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}"},
        cwd=folder,
        log_file=folder / "log",
        ready=" ready.",
    )
    return LocalProcess(process, id_=id_)
