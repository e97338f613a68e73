"""The settings of limits: a base of `textgen.settings.Settings`, as they are many. 0 is no limit."""

from __future__ import annotations

from pydantic import BaseModel, Field

_KEY = "of one key, or of an owner's work without a key"
_ALL = "of all together"


class QuotaSettings(BaseModel):
    """Limits, fairness and prices."""

    limit_requests_per_minute: int = Field(0, ge=0, le=1_000_000, description=f"Submits a minute {_KEY}.")
    limit_tokens_per_minute: int = Field(
        0, ge=0, description=f"Tokens a minute {_KEY}: of the prompt, estimated, and `max_tokens`."
    )
    limit_tasks: int = Field(0, ge=0, description=f"Tasks that wait or run at once {_KEY}.")
    limit_tokens_per_day: int = Field(0, ge=0, description=f"Tokens a day (UTC) {_KEY}.")
    limit_tokens_per_month: int = Field(0, ge=0, description=f"Tokens a month {_KEY}.")
    limit_usd_per_day: float = Field(0, ge=0, le=1e6, description=f"Dollars a day (UTC) {_KEY}.")
    limit_usd_per_month: float = Field(0, ge=0, le=1e6, description=f"Dollars a month {_KEY}.")
    limit_all_requests_per_minute: int = Field(0, ge=0, le=1_000_000, description=f"Submits a minute {_ALL}.")
    limit_all_tokens_per_minute: int = Field(0, ge=0, description=f"Tokens a minute {_ALL}.")
    limit_all_tokens_per_day: int = Field(0, ge=0, description=f"Tokens a day {_ALL}.")
    limit_all_tokens_per_month: int = Field(0, ge=0, description=f"Tokens a month {_ALL}.")
    limit_all_usd_per_day: float = Field(0, ge=0, le=1e6, description=f"Dollars a day {_ALL}.")
    limit_all_usd_per_month: float = Field(0, ge=0, le=1e6, description=f"Dollars a month {_ALL}.")
    max_queued: int = Field(
        100_000,
        ge=0,
        description="Tasks that wait or run at once, of all; past it, submits get 503.",
    )
    limit_open: int = Field(
        500,
        ge=0,
        description="Streams and waits that an owner has open at once in one process of the web app, where "
        "keys are needed.",
    )
    owner_share: int = Field(
        0,
        ge=0,
        description="Tasks of one owner in each lane at once; the others wait their turn. 0: any number.",
    )
    prices: str = Field(
        "",
        description='Dollars per million tokens, as JSON or the path of a file: `{"openai/gpt-5": '
        '{"prompt": 1.25, "completion": 10, "cached": 0.125}, "local": …}`.',
    )
