"""The live server does what its own OpenAPI document says: Schemathesis' checks, all of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.environment import Environment, new_folder, of_process

ADMIN_KEY = "tg_" + "k" * 43


@pytest.mark.parametrize("kind", ["valkey"])
def test_nothing_that_schemathesis_tries_is_against_the_description(
    kind: str,
    stack_env: Callable[..., Environment],
    start_web: Callable[..., Any],
    start_worker: Callable[..., Any],
) -> None:
    env = stack_env(kind, TEXTGEN_ADMIN_KEY=ADMIN_KEY, TEXTGEN_INDEXED_METADATA="user")
    start_worker(env, "threads", 4).wait_ready()
    web, folder = start_web(env), new_folder("schemathesis")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{web.url}/openapi.json"]
    # one worker: with threads, CPython 3.11's parser, which Hypothesis calls, can lose count of its depth
    command += ["--checks", "all", "--max-examples", "25", "--seed", "1", "--no-color", "--workers", "1"]
    command += ["--header", f"Authorization: Bearer {ADMIN_KEY}", "--request-timeout", "30"]
    done = subprocess.run(
        command, env=of_process(env), cwd=folder, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert "error" not in done.stdout.splitlines()[-1]
