"""Gates: places in textgen's processes where a task stops until it is let through.

A fault is to strike in a phase that lasts microseconds. So a request whose `metadata.gate` names one
of `GATES` waits there, in its first attempt, and the ledger tells that it does. Every process of a
run imports this at its start (`sitecustomize`); nothing of textgen is imported before it is needed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wrapt

#: Names the folder in which a file of a task's id opens the gate.
FOLDER = "TEXTGEN_FAULTS_GATES"
#: Seconds after which a gate opens by itself, so that nothing outlives a run.
OPENS_S = 90.0
#: `publish`: recorded, and not yet sent to the broker. `answer`: confirmed by the broker, and the
#: client not yet told. `write`: the text is complete, and its record not yet written. `ack`: the
#: record stands, and the message is not yet acknowledged.
GATES = ("publish", "answer", "write", "ack")


def wait_at(gate: str, record: Any) -> None:
    """Stop at the gate, if the task is to stop at this one."""
    if record.metadata.get("gate") != gate or record.attempt > 1:
        return
    from tests.faults.ledger import note

    note("gate", gate=gate, id=record.task_id, op=record.metadata.get("op"))
    opened, until = Path(os.environ[FOLDER]) / record.task_id, time.monotonic() + OPENS_S
    while not opened.exists() and time.monotonic() < until:
        time.sleep(0.02)


def _before(gate: str, find: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
        wait_at(gate, find(instance, *args))
        return wrapped(*args, **kwargs)

    return wrapper


def _after(gate: str, find: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
        answer = wrapped(*args, **kwargs)
        wait_at(gate, find(instance, *args))
        return answer

    return wrapper


def install() -> None:
    """Put the gates into textgen, once it is imported."""

    @wrapt.when_imported("textgen.hooks")
    def submits(module: Any) -> None:
        first = lambda task, record, *rest: record  # noqa: E731
        wrapt.wrap_function_wrapper(module, "GenerateTask._first_send", _before("publish", first))
        wrapt.wrap_function_wrapper(module, "GenerateTask._first_send", _after("answer", first))

    @wrapt.when_imported("textgen.attempt")
    def attempts(module: Any) -> None:
        held = lambda attempt, *rest: attempt.record  # noqa: E731
        wrapt.wrap_function_wrapper(module, "_Attempt._settle", _before("write", held))
        wrapt.wrap_function_wrapper(module, "_Attempt._settle", _after("ack", held))
