"""The engines there are, found through the entry-point group `textgen.engines`.

This package registers its own there like any other package does (name = "module:Class").
"""

from __future__ import annotations

import importlib
import os
import threading
from functools import cache
from importlib.metadata import entry_points

from billiard import current_process

from textgen.engines.base import Chunk, Engine, EngineRequest, Finish
from textgen.errors import ConfigurationError
from textgen.settings import Settings, get_settings

__all__ = ["Chunk", "Engine", "EngineRequest", "Finish", "default_name", "get_engine", "names"]

_instances: dict[tuple[int, str], Engine] = {}
_instances_lock = threading.Lock()


@cache
def _classes() -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group="textgen.engines")}


def names() -> list[str]:
    """The names of all engines, sorted."""
    return sorted(_classes())


@cache
def engine_class(name: str) -> type[Engine]:
    """Import the class of engine `name`.

    Raises:
        ConfigurationError: There is no such engine, or its package does not load.
    """
    try:
        module, _, attribute = _classes()[name].partition(":")
    except KeyError:
        raise ConfigurationError(f"engine {name!r} does not exist; there are: {', '.join(names())}") from None
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(f"engine {name!r} cannot be loaded: {exc}") from exc


def default_name() -> str:
    """The engine of requests that name none: `TEXTGEN_ENGINE`, else `local` where it works.

    Raises:
        ConfigurationError: Nothing is set and the local engine cannot work here; says what to do.
    """
    settings = get_settings()
    if settings.engine:
        return settings.engine
    missing = engine_class("local").missing(settings)
    if missing:
        raise ConfigurationError(f"{missing} Or name another engine with TEXTGEN_ENGINE.")
    return "local"


def _settings() -> Settings:
    """The settings as they are for this process, which in a prefork pool is one of many.

    Such a child runs one task at a time, and shares the cores with the others.
    """
    settings = get_settings()
    if current_process().name == "MainProcess":
        return settings
    processes = settings.workers * settings.concurrency
    return settings.model_copy(update={"workers": processes, "concurrency": 1})


def get_engine(name: str) -> Engine:
    """The engine `name` of this process, set up on first use.

    Raises:
        ConfigurationError: There is no such engine.
        EngineError: It could not be set up; the next call tries again.
    """
    key = (os.getpid(), name)
    with _instances_lock:
        engine = _instances.get(key)
        if engine is None:
            engine = engine_class(name)(_settings())
            engine.setup()
            _instances[key] = engine
        return engine
