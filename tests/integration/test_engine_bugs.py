"""An engine that raises whatever it is asked spoils its own tasks, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.environment import Environment, new_folder
from tests.integration.terminals import documents, textgen

BROKEN = """
from textgen.engines import Engine


class BrokenEngine(Engine):
    name, is_remote = "broken", True

    @classmethod
    def _raise(cls, *_):
        raise KeyError("sk-canary-7261")

    missing = default_model = account = default_max_tokens = setup = _raise

    def generate(self, request):
        self._raise()
        yield
"""


@pytest.fixture
def env(stack_env: Callable[..., Environment]) -> Environment:
    folder = new_folder("broken")
    information = folder / "broken-1.dist-info"
    information.mkdir()
    (folder / "broken.py").write_text(BROKEN)
    (information / "METADATA").write_text("Name: broken\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[textgen.engines]\nbroken = broken:BrokenEngine\n")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return stack_env("valkey", PYTHONPATH=path)


@pytest.mark.parametrize("more", [[], ["--seed", "1"], ["--max-tokens", "5"]])
def test_its_tasks_fail(more: list[str], env: Environment, start_worker: Callable[..., Any]) -> None:
    worker = start_worker(env, "threads", 2).wait_ready()
    [record] = documents(textgen(env, "single", "Hello", "--engine", "broken", "--json", *more))
    assert (record["status"], record["error"]["type"]) == ("FAILED", "EngineBug")
    [record] = documents(textgen(env, "single", "Hello", "--engine", "mock", "--json"))
    assert record["status"] == "COMPLETED"
    assert "canary" not in worker.log()


def test_it_spoils_no_report(env: Environment) -> None:
    run = textgen(env, "engines", "--check", "--json")
    [rows] = documents(run)
    found = {row["name"]: row["why"] for row in rows}
    assert (run.returncode, found["mock"]) == (0, "")
    assert found["broken"] == "the engine broke with KeyError"
    assert "engine mock" in textgen(env, "check").stdout


def test_as_the_default_it_keeps_no_worker_from_others(
    env: Environment, start_worker: Callable[..., Any]
) -> None:
    worker = start_worker(env | {"TEXTGEN_ENGINE": "broken"}, "threads", 2).wait_ready()
    worker.wait_for_log("an engine broke")
    [record] = documents(textgen(env, "single", "Hello", "--engine", "mock", "--json"))
    assert record["status"] == "COMPLETED"
    assert "canary" not in worker.log()
