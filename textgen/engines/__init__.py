"""The engines there are: those of the entry-point group `textgen.engines`, and servers named by a setting.

This package registers its own there like any other package does (name = "module:Class").
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from textgen.engines.base import Chunk, Engine, EngineRequest, Finish
from textgen.errors import ConfigurationError
from textgen.servers import Server, from_settings
from textgen.settings import Settings, get_settings

if TYPE_CHECKING:
    from textgen.engines.openai import ServerEngine

__all__ = ["Chunk", "Engine", "EngineRequest", "Finish", "default_name", "get_engine", "names"]

_instances: dict[tuple[int, str], Engine] = {}
_instances_lock = threading.Lock()
_locks: dict[tuple[int, str], threading.Lock] = {}
#: Those that the engines of this process are set up with, where they are not everybody's.
_settings: Settings | None = None
#: Name of a server → its class.
_of_servers: dict[str, type[ServerEngine]] = {}


@cache
def _classes() -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group="textgen.engines")}


def _servers() -> Mapping[str, Server]:
    """The servers that `TEXTGEN_SERVERS` names, none of which may hide an installed engine."""
    found = from_settings(get_settings())
    hidden = sorted(found.keys() & _classes().keys())
    if hidden:
        raise ConfigurationError(f"TEXTGEN_SERVERS: {hidden[0]}: is an installed engine; name it otherwise")
    return found


def names() -> list[str]:
    """The names of all engines, sorted.

    Raises:
        ConfigurationError: `TEXTGEN_SERVERS` is wrong.
    """
    return sorted({*_classes(), *_servers()})


def engine_class(name: str) -> type[Engine]:
    """The class of engine `name`.

    Raises:
        ConfigurationError: There is no such engine, or its package does not load.
    """
    server = _servers().get(name)
    return _installed(name) if server is None else _server_class(name, server)


def _server_class(name: str, server: Server) -> type[Engine]:
    from textgen.engines.openai import ServerEngine

    known = _of_servers.get(name)
    if known is None or known.described != server:
        known = _of_servers[name] = ServerEngine.named(name, server)
    return known


@cache
def _installed(name: str) -> type[Engine]:
    try:
        module, _, attribute = _classes()[name].partition(":")
    except KeyError:
        raise ConfigurationError(f"engine {name!r} does not exist; there are: {', '.join(names())}") from None
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(f"engine {name!r} cannot be loaded: {exc}") from exc


def default_name() -> str:
    """The engine or route of requests that name none: `TEXTGEN_ENGINE`, else `local` where it works.

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


def be_one_of(children: int) -> None:
    """Have the engines of this process be set up for one task at a time, as one of `children` such processes.

    They share the cores with the others.
    """
    global _settings
    _settings = get_settings().model_copy(update={"workers": children, "concurrency": 1})


def get_engine(name: str) -> Engine:
    """The engine `name` of this process, set up on first use.

    Raises:
        ConfigurationError: There is no such engine.
        EngineError: It could not be set up; the next call tries again.
    """
    key = (os.getpid(), name)
    if engine := _instances.get(key):
        return engine
    with _instances_lock:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:  # of this engine alone: a model that is being loaded holds up no other engine
        engine = _instances.get(key)
        if engine is None:
            engine = engine_class(name)(_settings or get_settings())
            engine.setup()
            _instances[key] = engine
        return engine
