"""Routes: which engines a request may go to, and in which order an attempt after the other tries them.

A plan follows from the record and the settings alone, so that every process makes the same one.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from textgen import engines, prices, tables
from textgen.errors import ConfigurationError
from textgen.estimates import prompt_tokens
from textgen.lifecycle import Record
from textgen.settings import Settings

#: Engines of one route.
MAX_ENTRIES = 8
#: The newest engines tried that a record tells of.
MAX_TRIED = 32
#: What a model may be named within a route.
MODEL = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}"
_MODEL = re.compile(MODEL)

Order = Literal["order", "weight", "cost"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One engine of a route."""

    engine: str
    #: None: the engine's own default.
    model: str | None = None
    #: Its share of the tasks that begin with it, relative to the others'.
    weight: float = 1.0

    @property
    def label(self) -> str:
        """The entry as a route names it."""
        return f"{self.engine}/{self.model}" if self.model else self.engine


@dataclass(frozen=True, slots=True)
class Route:
    """Some engines, and how they are put in order."""

    entries: tuple[Entry, ...]
    by: Order = "order"


class _Weighted(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str
    weight: float = Field(1.0, gt=0, le=1e6, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, given: Any) -> Any:
        return _in_full(given, str, "engine")


class _Named(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Order = "order"
    engines: list[_Weighted]

    @model_validator(mode="before")
    @classmethod
    def _of_list(cls, given: Any) -> Any:
        return _in_full(given, list, "engines")


def _in_full(given: Any, kind: type, field: str) -> Any:
    """An object, of which `field` alone may be given; it is of this kind."""
    if isinstance(given, kind):
        return {field: given}
    if not isinstance(given, dict):
        raise ValueError(f"must be an object, or what its `{field}` would be")
    return given


_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
_TABLE: TypeAdapter[dict[_Name, _Named]] = TypeAdapter(dict[_Name, _Named])


@lru_cache(maxsize=8)
def _named(text: str) -> dict[str, Route]:
    """The routes of `TEXTGEN_ROUTES`."""
    found = {}
    for name, route in tables.read(text, _TABLE, "TEXTGEN_ROUTES").items():
        try:
            if name in engines.names():
                raise ValueError("is the name of an engine")
            entries = _entries([one.engine for one in route.engines])
            weighted = [
                replace(entry, weight=one.weight) for entry, one in zip(entries, route.engines, strict=True)
            ]
            found[name] = Route(tuple(weighted), route.by)
        except ValueError as exc:
            raise ConfigurationError(f"TEXTGEN_ROUTES: {name}: {exc}") from None
    return found


def names(settings: Settings) -> list[str]:
    """The names of all routes, sorted.

    Raises:
        ConfigurationError: `TEXTGEN_ROUTES` is wrong; says how.
    """
    return sorted(_named(settings.routes))


def find(text: str, settings: Settings) -> Route:
    """The route that `text` means: a name of one, an engine, or several with commas between.

    Raises:
        ValueError: It means none; the message says why, without any part of `text`.
        ConfigurationError: `TEXTGEN_ROUTES` is wrong.
    """
    return _named(settings.routes).get(text) or _listed(text, *engines.names())


@lru_cache(maxsize=256)
def _listed(text: str, *known: str) -> Route:
    """The route that lists engines; of those that are `known`."""
    return Route(_entries([part.strip() for part in text.split(",")]))


def default(settings: Settings) -> Route:
    """The route of requests that name no engine.

    Raises:
        ConfigurationError: There is none, or `TEXTGEN_ENGINE` means none.
    """
    try:
        return find(settings.engine or engines.default_name(), settings)
    except ValueError as exc:
        raise ConfigurationError(f"TEXTGEN_ENGINE: {exc}") from None


def _entries(listed: list[str]) -> tuple[Entry, ...]:
    if not listed:
        raise ValueError("names no engine")
    if len(listed) > MAX_ENTRIES:
        raise ValueError(f"names more than {MAX_ENTRIES} engines")
    entries = []
    for number, text in enumerate(listed, 1):
        who = f"entry {number} " if len(listed) > 1 else ""
        engine, slash, model = text.partition("/")
        if engine not in engines.names():
            raise ValueError(f"{who}is not an engine; there are: {', '.join(engines.names())}")
        if slash and not _MODEL.fullmatch(model):
            raise ValueError(f"{who}has no usable name of a model behind its slash")
        if text in listed[: number - 1]:
            raise ValueError(f"{who}was named before")
        entries.append(Entry(engine, model or None))
    return tuple(entries)


def pattern() -> str:
    """What a list of engines looks like, as JSON Schema and Python both read it."""
    one = f"(?:{'|'.join(re.escape(name) for name in engines.names())})(?:/{MODEL})?"
    twice = r"(?!(?:.*,)?([^,]+),(?:.*,)?\1(?:,|$))"
    return f"^{twice}{one}(?:,{one}){{0,{MAX_ENTRIES - 1}}}$"


# Plans


def _route_of(record: Record, settings: Settings) -> Route:
    asked = record.params.get("engine")
    try:
        return find(asked, settings) if asked else default(settings)
    except ValueError as exc:  # refused at the edge, where the settings are the same
        raise ConfigurationError(f"its engine {exc}") from None
    except ConfigurationError:
        if asked:
            raise
        # who submits need not have the engine that workers have: where it works nowhere, the attempt says so
        return Route((Entry(settings.engine or "local"),))


def is_plain(record: Record, settings: Settings) -> bool:
    """Whether a record's parameters alone say which engine and model write its text."""
    [first, *others] = _route_of(record, settings).entries
    asked = record.params.get("engine")
    return not others and first.model is None and asked in (None, first.engine)


def plan(record: Record, settings: Settings) -> tuple[Entry, ...]:
    """The engines that a round of attempts tries, in order.

    The request's model goes to those for which the route names none.

    Raises:
        ConfigurationError: Its engine means none here.
    """
    route = _route_of(record, settings)
    ordered: Iterable[Entry] = route.entries
    if route.by == "weight":
        ordered = sorted(route.entries, key=lambda entry: _draw(record.task_id, entry))
    model = record.params.get("model")
    filled = [entry if entry.model else replace(entry, model=model) for entry in ordered]
    if route.by == "cost":
        filled.sort(key=lambda entry: _cost(entry, record, settings))
    return tuple({(entry.engine, entry.model): entry for entry in reversed(filled)}.values())[::-1]


def _draw(task_id: str, entry: Entry) -> float:
    """A time drawn for an entry: the earliest comes first, with a chance in proportion to its weight."""
    digest = hashlib.sha256(f"{task_id} {entry.label}".encode()).digest()
    even = (int.from_bytes(digest[:6], "big") + 1) / 2**48
    return -math.log(even) / entry.weight


def model_of(entry: Entry, settings: Settings) -> str | None:
    """The model that writes the text, as far as the settings tell."""
    with suppress(Exception):  # whatever it is, it says so when it is called
        return entry.model or engines.engine_class(entry.engine).default_model(settings)
    return None


def _cost(entry: Entry, record: Record, settings: Settings) -> float:
    """What the text may cost at the most; infinite where no price is set."""
    price = prices.from_settings(settings).of(entry.engine, model_of(entry, settings))
    return price.nano(*most_tokens(record, settings, (entry,))) if price else math.inf


def most_tokens(record: Record, settings: Settings, entries: Iterable[Entry] = ()) -> tuple[int, int]:
    """The most that one attempt at a task may use: tokens of the prompt, about, and of the text.

    Args:
        record: The task.
        settings: How long a text is for which no length is asked.
        entries: The engines that may write it; by default those of its route.
    """
    asked = record.params.get("max_tokens")
    return prompt_tokens(record), asked or max(
        default_tokens(entry, settings) for entry in entries or plan(record, settings)
    )


def default_tokens(entry: Entry, settings: Settings) -> int:
    """Tokens of a text for which no length is asked, as far as the settings tell."""
    with suppress(Exception):  # whatever it is, it says so when it is called
        return engines.engine_class(entry.engine).default_max_tokens(settings)
    return settings.max_tokens


def this_round(record: Record) -> list[dict[str, Any]]:
    """What of `tried` belongs to the present round: every failure of the task begins a new one.

    What an attempt passed over counts only if it tried another engine then: one that was handed back did not.
    """
    present = [one for one in record.tried if one["round"] == record.failures]
    calling = {one["attempt"] for one in present if one.get("called", True)}
    return [one for one in present if one["attempt"] in calling]


def left(record: Record, settings: Settings) -> tuple[Entry, ...]:
    """The engines not tried yet in this round, in order."""
    spent = {(one["engine"], one["model"]) for one in this_round(record)}
    return tuple(entry for entry in plan(record, settings) if (entry.engine, entry.model) not in spent)


def next_entry(record: Record, settings: Settings) -> Entry:
    """The engine that the next attempt is to try first: if it can be, none that was passed over just now."""
    entries = left(record, settings) or plan(record, settings)
    now = (record.failures, record.attempt)
    passed = {(one["engine"], one["model"]) for one in record.tried if (one["round"], one["attempt"]) == now}
    return next((entry for entry in entries if (entry.engine, entry.model) not in passed), entries[0])


def noted(
    record: Record,
    entries: Iterable[tuple[Entry, str]],
    attempt: int,
    retryable: bool = True,
    called: bool = True,
) -> list[dict[str, Any]]:
    """The record's `tried`, with engines added that an attempt tried or passed over.

    Args:
        record: The task.
        entries: The engines, each with the reason why it did not write the text.
        attempt: The attempt.
        retryable: Whether they may do so another time.
        called: Whether they were called, rather than passed over.
    """
    more = [
        {
            "engine": entry.engine,
            "model": entry.model,
            "attempt": attempt,
            "round": record.failures,
            "reason": reason,
            "retryable": retryable,
            "called": called,
        }
        for entry, reason in entries
    ]
    return [*record.tried, *more][-MAX_TRIED:]
