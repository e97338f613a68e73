"""The ledger in Redis, as it is read; `textgen.store.meter` writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from textgen.prices import NANO
from textgen.store import keys
from textgen.store.connection import translated
from textgen.store.tasks import Store


@dataclass(frozen=True, slots=True)
class Used:
    """What a key of an owner used on a day."""

    day: str
    key: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    #: Nanodollars; None where nothing used had a price.
    nano: int | None

    def as_dict(self) -> dict[str, Any]:
        """The row as HTTP and command line show it; no key is null, and no price too."""
        return {
            "day": self.day,
            "key": self.key or None,
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost_usd": None if self.nano is None else self.nano / NANO,
        }

    @classmethod
    def from_dict(cls, shown: dict[str, Any]) -> Self:
        """The row that `as_dict` shows so."""
        cost = shown["cost_usd"]
        return cls(
            shown["day"],
            shown["key"] or "",
            shown["requests"],
            shown["prompt_tokens"],
            shown["completion_tokens"],
            None if cost is None else round(cost * NANO),
        )


def used(store: Store, owner: str, days: list[str]) -> list[Used]:
    """What each key of an owner used on each of `days` (ISO 8601), for as long as that is kept."""
    with translated():
        pipe = store.client.pipeline(transaction=False)
        for day in days:
            pipe.hgetall(f"{keys.LEDGER}{owner}:{day}")
        found = pipe.execute()
    return [one for day, fields in zip(days, found, strict=True) for one in _rows(day, fields)]


def _rows(day: str, fields: dict[str, str]) -> list[Used]:
    ids = sorted({name.rpartition("|")[0] for name in fields})
    return [
        Used(
            day,
            key,
            int(fields.get(f"{key}|requests", 0)),
            int(fields.get(f"{key}|prompt", 0)),
            int(fields.get(f"{key}|completion", 0)),
            int(fields[f"{key}|nano"]) if f"{key}|nano" in fields else None,
        )
        for key in ids
    ]
