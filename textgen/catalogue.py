"""The engines as this process's settings make them: ready or not, their models, prices and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textgen import engine_limits, engines, prices, routes, servers
from textgen.errors import ConfigurationError, EngineError
from textgen.prices import Price
from textgen.settings import Settings


@dataclass(frozen=True, slots=True)
class Entry:
    """An engine."""

    name: str
    #: Whether requests that name no engine go there.
    is_default: bool = False
    is_remote: bool = False
    #: What keeps it from working here; empty: nothing that is known.
    why: str = ""
    #: The model of requests that name none.
    model: str | None = None
    #: Those that it has, if it was asked.
    models: tuple[str, ...] = ()
    #: Model, or `*` for the others → dollars per million tokens.
    prices: tuple[tuple[str, Price], ...] = ()
    #: What it may be asked in a window of time, as the settings bound it.
    limits: dict[str, Any] | None = None
    #: Whether somebody means it to work: it is the default one, or set up by name.
    is_wanted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The entry as command line and HTTP show it."""
        return {
            "name": self.name,
            "default": self.is_default,
            "ready": not self.why,
            "remote": self.is_remote,
            "model": self.model,
            "models": list(self.models),
            "prices": {model: price.model_dump(exclude_none=True) for model, price in self.prices},
            "limits": self.limits,
        }


def entries(settings: Settings, is_asked: bool = False) -> list[Entry]:
    """All engines, by name.

    Args:
        settings: Those of this process: a worker elsewhere may have others.
        is_asked: Whether to set each up that can be, and to ask its provider.

    Raises:
        ConfigurationError: `TEXTGEN_SERVERS`, `TEXTGEN_PRICES` or `TEXTGEN_ENGINE_LIMITS` is wrong.
    """
    try:
        default = {entry.engine for entry in routes.default(settings).entries}
    except ConfigurationError:
        default = set()
    named, table = servers.from_settings(settings), prices.from_settings(settings).table
    return [
        _entry(name, settings, name in default, name in named, is_asked, table) for name in engines.names()
    ]


def _entry(
    name: str, settings: Settings, is_default: bool, is_named: bool, is_asked: bool, table: dict[str, Price]
) -> Entry:
    found: dict[str, Any] = {"is_default": is_default, "is_wanted": is_default or is_named}
    try:
        engine = engines.engine_class(name)
        found |= {"is_remote": engine.is_remote, "model": engine.default_model(settings)}
        found["why"] = engine.missing(settings) or ""
        found["is_wanted"] = found["is_wanted"] or not found["why"]
        if is_asked and not found["why"]:
            found["models"] = _ask(name)
    except (ConfigurationError, EngineError) as exc:
        found["why"] = str(exc)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - a bug of one engine is nothing to the others
        found["why"] = f"the engine broke with {type(exc).__name__}"
    return Entry(name, **found, prices=_prices(name, table), limits=_limits(name, settings))


def _ask(name: str) -> tuple[str, ...]:
    engine = engines.get_engine(name)
    engine.check()
    return tuple(engine.models())


def _prices(name: str, table: dict[str, Price]) -> tuple[tuple[str, Price], ...]:
    keyed = ((key.partition("/"), price) for key, price in table.items())
    return tuple((model or "*", price) for (engine, _, model), price in keyed if engine == name)


def _limits(name: str, settings: Settings) -> dict[str, Any] | None:
    """What `name` may be asked in a window of time; None: no limit is set."""
    limit = engine_limits.of(name, settings)
    return limit.model_dump() if limit.is_one else None
