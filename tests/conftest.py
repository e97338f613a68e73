"""Fixtures that every kind of test shares: private servers, stacks of them, and our processes.

One environment per test run
    Settings are read once per process, and the Celery app, its connections and the store's client
    live as long as the process. So this file fixes the environment of the test process before
    anything imports textgen: it removes the variables that textgen, Celery and their servers read,
    then points CELERY_BROKER_URL and REDIS_URL at ports chosen for this run, with the mock engine
    and state in a temporary folder. Nothing listens there until a test asks for `live`, which
    starts both servers; after that `textgen.client`, `generate.delay` and the rest work in process.
    A test that needs other settings in process builds `Settings` itself or uses `monkeypatch` with
    `get_settings.cache_clear()`, and must leave both as they were.

Many environments in child processes
    `stack_env(kind)` gives the variables of a fresh, empty stack of kind "rabbitmq" (RabbitMQ and
    Redis) or "valkey" (Valkey as both); `start_worker(env, …)` and `start_web(env)` start our
    processes in it and end them with the test. The same with `module_` in front lives as long as
    the module. Tests that kill servers make their own with `tests.services`.

A server that is missing fails the test with a message; it is never skipped.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests import environment
from tests.environment import Environment, new_folder
from tests.programs import WebProcess, WorkerProcess
from tests.services import PrivateRabbitMQ, PrivateRedis, PrivateValkey

environment.enter_live()
# A shell's background job ignores Ctrl-C, and so would all that is started from here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    environment.remove_folders()


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[PrivateRabbitMQ]:
    """The RabbitMQ node of this run; `.url`, `.url_of(vhost)`, `.new_vhost()`, `.queues(vhost)`."""
    with PrivateRabbitMQ(new_folder("rabbitmq"), port=environment.BROKER_PORT) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[PrivateRedis]:
    """The Redis server of this run; `.url`, `.url_of(database)`, `.new_database()`, `.client()`."""
    with PrivateRedis(new_folder("redis"), port=environment.STORE_PORT) as server:
        yield server


@pytest.fixture(scope="session")
def live(rabbitmq: PrivateRabbitMQ, redis_server: PrivateRedis) -> Environment:
    """Start the servers of the environment that the test process itself is in; returns it.

    Give it to `start_worker` to have a worker for what the test submits in process.
    """
    return environment.live()


@pytest.fixture
def stack_env(request: pytest.FixtureRequest) -> Iterator[Callable[..., Environment]]:
    """`stack_env(kind, **variables)`: the environment of a fresh stack, "rabbitmq" or "valkey"."""
    with ExitStack() as stack:
        yield _stack_factory(request, stack)


@pytest.fixture(scope="module")
def module_stack_env(request: pytest.FixtureRequest) -> Iterator[Callable[..., Environment]]:
    """As `stack_env`, for as long as the module."""
    with ExitStack() as stack:
        yield _stack_factory(request, stack)


@pytest.fixture
def start_worker() -> Iterator[Callable[..., WorkerProcess]]:
    """`start_worker(env, pool, concurrency, args=(), name=, cwd=, python=)`; then `.wait_ready()`.

    It is killed at the end of the test. See `tests.processes.Process` for what can be done to it.
    """
    with ExitStack() as stack:
        yield lambda *args, **extra: stack.enter_context(WorkerProcess(*args, **extra))


@pytest.fixture(scope="module")
def module_start_worker() -> Iterator[Callable[..., WorkerProcess]]:
    """As `start_worker`, for as long as the module."""
    with ExitStack() as stack:
        yield lambda *args, **extra: stack.enter_context(WorkerProcess(*args, **extra))


@pytest.fixture
def start_web() -> Iterator[Callable[..., WebProcess]]:
    """`start_web(env, workers=1, cwd=, python=)`: gunicorn that already answers at `.url`."""
    with ExitStack() as stack:
        yield lambda *args, **extra: stack.enter_context(WebProcess(*args, **extra)).wait_ready()


@pytest.fixture(scope="module")
def module_start_web() -> Iterator[Callable[..., WebProcess]]:
    """As `start_web`, for as long as the module."""
    with ExitStack() as stack:
        yield lambda *args, **extra: stack.enter_context(WebProcess(*args, **extra)).wait_ready()


def _stack_factory(request: pytest.FixtureRequest, stack: ExitStack) -> Callable[..., Environment]:
    def make(kind: str = "rabbitmq", **extra: Any) -> Environment:
        folder = new_folder(kind)
        if kind == "valkey":
            server = stack.enter_context(PrivateValkey(folder))
            urls = server.url_of(1), server.url_of(0)
        elif kind == "rabbitmq":
            broker, store = request.getfixturevalue("rabbitmq"), request.getfixturevalue("redis_server")
            urls = broker.url_of(broker.new_vhost()), store.url_of(store.new_database())
        else:
            raise ValueError(f"no such kind of stack: {kind}")
        return environment.variables(*urls, folder) | {name: str(value) for name, value in extra.items()}

    return make
