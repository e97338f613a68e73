"""What may be asked of each engine by all workers together, as `TEXTGEN_ENGINE_LIMITS` sets it."""

from __future__ import annotations

from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from textgen import engines, tables
from textgen.errors import ConfigurationError
from textgen.settings import Settings


class EngineLimit(BaseModel):
    """The most that an engine is asked for in any window of time; 0 is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int = Field(0, ge=0, le=1_000_000_000)
    #: Of prompts, estimated, and `max_tokens`.
    tokens: int = Field(0, ge=0, le=1_000_000_000_000)
    window_s: float = Field(60.0, gt=0, le=86_400, allow_inf_nan=False)

    @property
    def is_one(self) -> bool:
        """Whether anything is limited."""
        return bool(self.requests or self.tokens)


#: The limit of engines for which none is set.
NONE = EngineLimit()
_TABLE: TypeAdapter[dict[str, EngineLimit]] = TypeAdapter(dict[str, EngineLimit])


@lru_cache(maxsize=8)
def _read(text: str) -> dict[str, EngineLimit]:
    found = tables.read(text, _TABLE, "TEXTGEN_ENGINE_LIMITS")
    for name in found:
        if name not in engines.names():
            known = ", ".join(engines.names())
            raise ConfigurationError(f"TEXTGEN_ENGINE_LIMITS: {name!r} is not an engine; there are: {known}")
    return found


def read(settings: Settings) -> dict[str, EngineLimit]:
    """The limits by engine.

    Raises:
        ConfigurationError: `TEXTGEN_ENGINE_LIMITS` is wrong; says how.
    """
    return _read(settings.engine_limits)


def of(engine: str, settings: Settings) -> EngineLimit:
    """The limit of one engine."""
    return read(settings).get(engine, NONE)
