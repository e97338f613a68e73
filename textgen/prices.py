"""What tokens cost: the table of prices that users set, in dollars per million tokens.

All money is reckoned in whole nanodollars, the billionth part of a dollar, so that sums stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from textgen import tables
from textgen.lifecycle import Record
from textgen.settings import Settings

#: Nanodollars of a dollar.
NANO = 1_000_000_000
#: The highest price: with more, what a task costs would be beyond what Redis counts exactly.
MAX_PRICE = 100_000
_Dollars = Annotated[float, Field(ge=0, le=MAX_PRICE, allow_inf_nan=False)]


class Price(BaseModel):
    """Dollars per million tokens of prompt and of generated text; `cached` where those cost less."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: _Dollars
    completion: _Dollars
    cached: _Dollars | None = None

    @property
    def prompt_nano(self) -> float:
        """Nanodollars of one token of a prompt."""
        return self.prompt * 1000

    @property
    def cached_nano(self) -> float:
        """Nanodollars of one token of a prompt that was in a cache."""
        return self.prompt_nano if self.cached is None else self.cached * 1000

    @property
    def completion_nano(self) -> float:
        """Nanodollars of one generated token."""
        return self.completion * 1000

    def nano(self, prompt_tokens: int, completion_tokens: int) -> int:
        """What so many tokens cost, in nanodollars."""
        return round(prompt_tokens * self.prompt_nano + completion_tokens * self.completion_nano)


@dataclass(frozen=True, slots=True)
class Prices:
    """The table.

    Attributes:
        table: `engine/model`, or `engine` for its other models → price.
        engine: The engine of requests that name none.
    """

    table: dict[str, Price]
    engine: str = ""

    def of(self, engine: str | None, *models: str | None) -> Price | None:
        """The price of the first of a model's names that has one, or None where none is set."""
        engine = engine or self.engine
        found = (self.table[f"{engine}/{model}"] for model in models if f"{engine}/{model}" in self.table)
        return next(found, None) or self.table.get(engine)

    def of_record(self, record: Record, asked: str | None = None) -> Price | None:
        """The price of what generates, or is to generate, the text of `record`.

        Providers answer with names of their own, which have a date: the name that was asked for counts too.
        """
        model = record.model or record.params.get("model")
        return self.of(record.engine or record.params.get("engine"), model, asked)


_TABLE: TypeAdapter[dict[str, Price]] = TypeAdapter(dict[str, Price])


@lru_cache(maxsize=8)
def _table(text: str) -> dict[str, Price]:
    return tables.read(text, _TABLE, "TEXTGEN_PRICES")


def from_settings(settings: Settings) -> Prices:
    """Read `TEXTGEN_PRICES`: a JSON object, or the path of a file that holds one.

    Raises:
        ConfigurationError: It is neither, or no such table.
    """
    return Prices(_table(settings.prices), settings.engine or "local")
