"""What pytest-celery must know of textgen: its worker, its setup, and what they are to run on."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pytest_celery import CeleryTestSetup, CeleryWorkerContainer

from tests.environment import Environment, new_folder, variables


@dataclass(frozen=True)
class Arrangement:
    """What a test runs on: servers ("rabbitmq": RabbitMQ and Redis, "valkey": both Valkey) and pool."""

    kind: str
    pool: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.pool}"


#: Every arrangement that is promised to work.
ARRANGEMENTS = [
    *(Arrangement("rabbitmq", pool) for pool in ("threads", "prefork", "gevent", "solo")),
    *(Arrangement("valkey", pool) for pool in ("threads", "prefork")),
]


def textgen_env(config: dict[str, Any], urls: str) -> Environment:
    """The variables of a textgen process in a cluster of pytest-celery."""
    broker, store = (config[f"celery_{part}_cluster_config"][urls][0] for part in ("broker", "backend"))
    return variables(broker, store, new_folder("setup"))


class TextgenWorker(CeleryWorkerContainer):
    """A worker of ours: the real command, configured by its environment alone."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        command = ["celery", "-A", "textgen", "worker", "-l", cls.log_level(), "-n", "textgen@%h"]
        return [*command, "--without-mingle", "--without-gossip", *args]

    @classmethod
    def worker_name(cls) -> str:
        return "textgen"

    @classmethod
    def worker_queue(cls) -> str:
        return "text_generation_tasks"

    @classmethod
    def initial_env(cls, celery_worker_cluster_config: dict[str, Any], initial: Any = None) -> Environment:
        return textgen_env(celery_worker_cluster_config, "urls") | {"PYTHONUNBUFFERED": "1"} | (initial or {})


class TextgenSetup(CeleryTestSetup):
    """The setup as our tests see it: with textgen's own ways in, besides the app."""

    @property
    def client(self) -> ModuleType:
        """`textgen.client`, in the environment of this setup."""
        return importlib.import_module("textgen.client")

    @property
    def generate(self) -> Any:
        """The Celery task `textgen.tasks.generate`."""
        return importlib.import_module("textgen.tasks").generate
