"""Broker, backend and worker as containers: pytest-celery's own way, for where there is an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_celery import RabbitMQContainer, RedisContainer
from pytest_docker_tools import build, container, fxtr

from tests.arrangement import Arrangement, TextgenWorker


class PinnedRabbitMQ(RabbitMQContainer):
    @classmethod
    def image(cls) -> str:
        return "rabbitmq:4.1"


class PinnedRedis(RedisContainer):
    @classmethod
    def image(cls) -> str:
        return "redis:8.0"


class PinnedValkey(RedisContainer):
    @classmethod
    def image(cls) -> str:
        return "valkey/valkey:8.1"

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        return ["valkey-server", *RedisContainer.command(*args)[1:]]


@pytest.fixture
def default_rabbitmq_broker_cls() -> type[RabbitMQContainer]:
    return PinnedRabbitMQ


@pytest.fixture
def default_redis_broker_cls() -> type[RedisContainer]:
    return PinnedValkey


@pytest.fixture
def default_redis_backend_cls(arrangement: Arrangement) -> type[RedisContainer]:
    return PinnedValkey if arrangement.kind == "valkey" else PinnedRedis


textgen_image = build(path=str(Path(__file__).parents[2]))

default_worker_container = container(
    image="{textgen_image.id}",
    environment=fxtr("default_worker_env"),
    network="{default_pytest_celery_network.name}",
    wrapper_class=TextgenWorker,
    timeout=60,
    command=fxtr("default_worker_command"),
)
