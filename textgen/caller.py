"""On whose behalf something is done: the owner, the key it was done with, and that key's limits."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from textgen.quotas import QuotaSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be used. 0 is no limit; None is as the settings say."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    #: Tasks that wait or run at once.
    tasks: int | None = None
    #: Days and months are those of UTC.
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None

    @classmethod
    def of_each(cls, settings: QuotaSettings) -> Self:
        """Those of each key, where the key has none of its own."""
        return cls(**{one.name: getattr(settings, f"limit_{one.name}") for one in fields(cls)})

    @classmethod
    def of_all(cls, settings: QuotaSettings) -> Self:
        """Those of everybody together."""
        names = [one.name for one in fields(cls) if one.name != "tasks"]
        return cls(
            **{name: getattr(settings, f"limit_all_{name}") for name in names}, tasks=settings.max_queued
        )

    def over(self, others: Limits) -> Self:
        """These, and `others` where these say nothing."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        return type(self)(**{name: getattr(others, name) if v is None else v for name, v in own.items()})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who submits.

    Attributes:
        owner: Whose the tasks are.
        key_id: Public id of the key, as the ledger shows it; empty for work without a key.
        limits: The key's own.
        line: The first of the keys that replaced one another; empty for work without a key.
    """

    owner: str
    key_id: str = ""
    limits: Limits = Limits()
    line: str = ""

    @property
    def signer(self) -> str:
        """Under which name the secret stands that signs the webhooks of what is submitted."""
        return f"{self.owner}/{self.line}" if self.line else self.owner
