"""The engines as this process's settings make them: ready or not, their models, prices and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textgen import engine_limits, engines, prices, routes, servers
from textgen.engines.remote import RemoteEngine
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
    #: Those that it is asked for, and that are not among them.
    unknown: tuple[str, ...] = ()
    #: Model, or `*` for the others → dollars per million tokens.
    prices: tuple[tuple[str, Price], ...] = ()
    #: What it may be asked in a window of time, as the settings bound it.
    limits: dict[str, Any] | None = None
    #: Whether somebody means it to work: it is the default one, or set up by name.
    is_wanted: bool = False

    @property
    def doubt(self) -> str:
        """What may keep it from working; some providers list not all that they have. Empty: nothing."""
        return f"its provider does not list {', '.join(self.unknown)}" if self.unknown else ""

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
        ConfigurationError: `TEXTGEN_SERVERS`, `TEXTGEN_ROUTES`, `TEXTGEN_PRICES` or `TEXTGEN_ENGINE_LIMITS`
            is wrong.
    """
    try:
        default = list(routes.default(settings).entries)
    except ConfigurationError:
        default = []
    others = [entry for name in routes.names(settings) for entry in routes.find(name, settings).entries]
    named, table = servers.from_settings(settings), prices.from_settings(settings).table
    found = []
    for name in engines.names():
        models = [entry.model for entry in default if entry.engine == name]
        told = _look(name, settings, models or [one.model for one in others if one.engine == name], is_asked)
        told |= {
            "is_default": bool(models),
            "is_wanted": bool(models or name in named or told.get("is_wanted")),
        }
        found.append(Entry(name, prices=_prices(name, table), limits=_limits(name, settings), **told))
    return found


def _look(name: str, settings: Settings, asked: list[str | None], is_asked: bool) -> dict[str, Any]:
    """What an engine itself tells; `asked` are the models that routes ask it for."""
    found: dict[str, Any] = {}
    try:
        engine = engines.engine_class(name)
        found |= {"is_remote": engine.is_remote, "model": engine.default_model(settings)}
        found["why"] = engine.missing(settings) or ""
        models = {model or found["model"] for model in asked or [None]}
        lacking = engine.setting("model") if issubclass(engine, RemoteEngine) and None in models else ""
        found["is_wanted"] = not found["why"] and not lacking
        if is_asked and not found["why"]:
            found["models"] = listed = _ask(name)
            found["unknown"] = tuple(one for one in models if listed and one and one not in listed)
        if lacking and not found["why"]:
            found["why"] = f"The engine {name} needs a model: set {lacking}."
    except (ConfigurationError, EngineError) as exc:
        found["why"] = str(exc)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - a bug of one engine is nothing to the others
        found["why"] = f"the engine broke with {type(exc).__name__}"
    return found


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
