"""The local model in a worker of each pool: there before the worker says that it is ready."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WorkerProcess
from tests.unit.generation import model_file

LOADED = "local model loaded"


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo", "prefork"])
def test_the_model_is_loaded_before_the_worker_is_ready(
    pool: str, stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    model = {"TEXTGEN_LOCAL_MODEL": model_file(), "TEXTGEN_LOCAL_CONTEXT": 256, "TEXTGEN_CONCURRENCY": 2}
    env = stack_env("valkey", TEXTGEN_ENGINE="local", **model)
    worker = start_worker(env, pool, 2).wait_ready()
    before_ready, _, _ = worker.log().partition(worker.ready)
    models = 2 if pool == "prefork" else 1
    if pool == "prefork":  # each child has its own, and is given no task before
        wait_until(lambda: worker.log().count(LOADED) == models, 60, "each child has loaded its own")
    else:
        assert before_ready.count(LOADED) == models
    slots = 2 // models  # a child runs one task at a time
    split = rf"{LOADED} .*context={256 * slots} .*context_of_each=256 .*slots={slots} .*threads=(\d+)"
    threads = [int(number) for number in re.findall(split, worker.log())]
    assert threads == [max(1, len(os.sched_getaffinity(0)) // models)] * models
    with application(env):
        from textgen import client
        from textgen.tasks import generate

        tasks = [generate.delay("Name a river.", max_tokens=4).id for _ in range(3)]
        assert {client.wait(task_id, 120).status for task_id in tasks} == {"COMPLETED"}
    assert worker.log().count(LOADED) == models
