"""The client's side of a test that runs against several stacks: textgen in another environment."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import celery.app.builtins  # noqa: F401 - registers what every app gets, before the look below
from celery import Celery, _state

from tests.environment import Environment

#: What Celery does to each new app. `@app.task` adds a step that registers the task with every app
#: made later, which would give the second textgen the first one's tasks.
FINALIZERS = frozenset(_state._on_app_finalizers)


def _ours() -> dict[str, ModuleType]:
    names = ("textgen", "celeryconfig", "web")
    return {name: module for name, module in sys.modules.items() if name.split(".")[0] in names}


def _forget(modules: dict[str, ModuleType]) -> None:
    for name in modules:
        del sys.modules[name]


def _set_finalizers(finalizers: frozenset[Any]) -> None:
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(finalizers)


@contextmanager
def application(env: Environment) -> Iterator[Celery]:
    """Import a second textgen, which reads its settings from `env`, and lend its Celery app.

    Inside the block an `import textgen…` finds this one; what was imported before stays as it is.
    """
    before, variables = _ours(), {name: os.environ.get(name) for name in env}
    finalizers = frozenset(_state._on_app_finalizers)
    _forget(before)
    _set_finalizers(FINALIZERS)
    os.environ.update(env)
    try:
        app: Celery = importlib.import_module("textgen.celery").app
        app.set_current()
        yield app
        app.close()
    finally:
        _set_finalizers(finalizers)
        _forget(_ours())
        sys.modules.update(before)
        for name, value in variables.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
