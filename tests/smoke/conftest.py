"""pytest-celery for textgen: whole workers against whole servers, through `celery_setup`.

Where there is a Docker engine, pytest-celery's own fixtures run broker, backend and worker as
containers. Where there is none, local processes take the containers' place under the same fixture
names, so that the tests are the same. They ask nothing of a node but what a container can do too.

`arrangement` says which servers and which pool a test runs on. The local servers and the worker of
one arrangement live as long as the module; a worker that a test has killed is started anew.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import docker
import pytest
from celery import Celery
from docker.errors import DockerException
from pytest_celery import CeleryTestBroker, CeleryWorkerContainer

from tests.application import application
from tests.arrangement import ARRANGEMENTS, Arrangement, TextgenSetup, TextgenWorker, textgen_env
from tests.environment import Environment


def has_docker_engine() -> bool:
    """Whether a Docker engine answers. The client of one that does not leaves its socket open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with closing(docker.from_env(timeout=2)) as client:
                return bool(client.ping())
        except DockerException:
            return False
        finally:
            gc.collect()


if has_docker_engine():
    from tests.smoke.containers import *  # noqa: F403
else:
    from tests.smoke.local import *  # noqa: F403

#: pytest-celery's fixture of the broker that a kind of servers has.
BROKERS = {"rabbitmq": "celery_rabbitmq_broker", "valkey": "celery_redis_broker"}


@pytest.fixture(scope="module", params=ARRANGEMENTS, ids=str)
def arrangement(request: pytest.FixtureRequest) -> Arrangement:
    """Narrow it with `@pytest.mark.parametrize("arrangement", […], indirect=True)`."""
    chosen: Arrangement = request.param
    return chosen


@pytest.fixture
def celery_broker(request: pytest.FixtureRequest, arrangement: Arrangement) -> Iterator[CeleryTestBroker]:
    """The arrangement's broker, in place of one of each vendor."""
    broker = request.getfixturevalue(BROKERS[arrangement.kind])
    yield broker
    broker.teardown()


@pytest.fixture
def celery_setup_cls() -> type[TextgenSetup]:
    return TextgenSetup


@pytest.fixture(scope="module")
def applications(arrangement: Arrangement) -> Iterator[Callable[[Environment], Celery]]:
    """Give the app for an environment, the same one for the same servers."""
    made: dict[tuple[str, str], Celery] = {}
    with ExitStack() as stack:

        def app_for(env: Environment) -> Celery:
            servers = env["CELERY_BROKER_URL"], env["REDIS_URL"]
            if servers not in made:
                made[servers] = stack.enter_context(application(env))
            return made[servers]

        yield app_for


@pytest.fixture
def celery_setup_app(
    applications: Callable[[Environment], Celery], celery_worker_cluster_config: dict[str, Any]
) -> Celery:
    """The real app, with its own backend, instead of one that pytest-celery puts together."""
    return applications(textgen_env(celery_worker_cluster_config, "host_urls"))


@pytest.fixture
def default_worker_container_cls() -> type[CeleryWorkerContainer]:
    return TextgenWorker


@pytest.fixture(scope="session")
def default_worker_container_session_cls() -> type[CeleryWorkerContainer]:
    return TextgenWorker


@pytest.fixture
def default_worker_command(
    default_worker_container_cls: type[CeleryWorkerContainer], arrangement: Arrangement
) -> list[str]:
    slots = "1" if arrangement.pool == "solo" else "4"
    return default_worker_container_cls.command("--pool", arrangement.pool, "--concurrency", slots)
