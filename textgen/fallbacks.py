"""The settings of routes, and of what is done about engines that are at their limit or down."""

from __future__ import annotations

from pydantic import BaseModel, Field


class FallbackSettings(BaseModel):
    """The part of the settings that says when another engine is to be tried, and which."""

    routes: str = Field(
        "",
        description='Routes by name, as JSON or a file: `{"smart": ["openai/gpt-5", "anthropic"], '
        '"cheap": {"by": "cost", "engines": [...]}}`.',
    )
    engine_limits: str = Field(
        "",
        description="What may be asked of an engine in any such window by all workers together, as JSON or "
        'the path of a file: `{"openai": {"requests": 60, "tokens": 90000, "window_s": 60}}`.',
    )
    breaker_failures: int = Field(
        5, ge=1, le=1000, description="Failures in a row after which a provider is left alone for a while."
    )
    breaker_reset_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds after which one task tries such a provider again."
    )
