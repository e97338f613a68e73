"""The models that describe what is answered beside tasks, and what webhooks are asked and told."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    field_validator,
)

from textgen.http.task_schemas import Task
from textgen.requests import WebhookEvent, describe_url, whole
from textgen.webhooks.calls import MAX_OVERLAP_S, OVERLAP_S
from textgen.webhooks.guard import MAX_URL_CHARS


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    field: str
    reason: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="A stable name for programs; `about:blank` where the status says it all.")
    title: str
    status: int
    detail: str = Field(description="One sentence for people.")
    errors: list[FieldError] | None = Field(None, description="The fields that are wrong, with 422.")
    limit: str | None = Field(None, description="Which limit is reached, with 402, 429 and a full queue.")
    parts: dict[str, str | None] | None = Field(None, description="What is down and why, from /readyz.")


class UsageItem(BaseModel):
    """What a key used on a day, of tasks that ended on it."""

    day: str = Field(json_schema_extra={"format": "date"})
    key: str | None = Field(description="Id of the key; null: work without one.")
    requests: int = Field(description="Tasks that ended.")
    prompt_tokens: int = Field(description="Of all attempts; so are the next two.")
    completion_tokens: int
    cost_usd: float | None = Field(description="Dollars; null where nothing used has a price.")


class UsageList(BaseModel):
    """The ledger, day by day."""

    data: list[UsageItem]


class EnginePrice(BaseModel):
    """Dollars per million tokens."""

    prompt: float
    completion: float
    cached: float | None = Field(None, description="Of a prompt's tokens that come from a cache.")


class EngineItem(BaseModel):
    """An engine that a request may name."""

    name: str
    default: bool = Field(description="Whether requests that name none go there.")
    ready: bool = Field(description="Whether this server's settings and packages are enough for it.")
    remote: bool = Field(description="Whether somebody else's server writes the text.")
    model: str | None = Field(description="The model of requests that name none.")
    models: list[str] = Field(description="Those that it is known to have.")
    prices: dict[str, EnginePrice] = Field(description="By model; `*`: those that have none of their own.")
    limits: dict[str, Any] | None = Field(description="What it may be asked in a window of time.")


class EngineList(BaseModel):
    """The engines, by name."""

    data: list[EngineItem]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"]


class Ready(BaseModel):
    """All parts are there."""

    status: Literal["ready"]
    parts: dict[str, str | None] = Field(description="Part → what is wrong with it, here always null.")


class DeadLetterItem(BaseModel):
    """A message that was no task, or a task that failed in every attempt allowed."""

    id: str = Field(description="The task's id, or one of its own.")
    reason: str = Field(description="Why it is a dead letter.")
    queue: str = Field(description="The queue it came from.")
    at: str = Field(description="Since when; ISO 8601, UTC.")
    attempts: list[dict[str, Any]] = Field(description="What became of each attempt.")
    trace_id: str | None = Field(description="Id of the outermost task that led here.")
    owner: str = Field(description="Whose task it was.")
    request: dict[str, Any] | None = Field(description="What it asked for; null where it was not valid.")


class DeadLetterList(BaseModel):
    """The newest dead letters."""

    data: list[DeadLetterItem]


class Purged(BaseModel):
    """How many were deleted."""

    purged: int


class Cleared(BaseModel):
    """How many cached results were deleted."""

    cleared: int


class WebhookTry(BaseModel):
    """One try of a delivery."""

    id: str = Field(description="The `webhook-id`: the same in every try.")
    type: WebhookEvent
    number: int = Field(description="1 for the first try.")
    outcome: Literal["delivered", "failed", "given_up", "gone", "disabled"] = Field(
        description="`failed`: it will be tried again. `gone`: the receiver answered 410, and what follows "
        "for this address is `disabled`."
    )
    status_code: int | None = Field(description="What the receiver answered.")
    reason: str = Field(description="Why it was no success; empty if it was.")
    duration_ms: int
    next_at: str | None = Field(description="When it is tried again.")
    at: str = Field(description="ISO 8601, UTC.")


class WebhookDeliveries(BaseModel):
    """The tries of a task's webhook deliveries, oldest first."""

    data: list[WebhookTry]


class WebhookTestRequest(BaseModel):
    """Which address to test."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: StrictStr = Field(
        min_length=1,
        max_length=MAX_URL_CHARS,
        description="A public https address.",
        json_schema_extra=describe_url,
    )


class WebhookAnswer(BaseModel):
    """What came of a test."""

    delivered: bool
    status_code: int | None = Field(description="What the receiver answered.")
    reason: str = Field(description="Why it was no success; empty if it was.")
    duration_ms: int


class RotateRequest(BaseModel):
    """How to rotate the secret."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    overlap_s: StrictInt = Field(
        OVERLAP_S, ge=0, le=MAX_OVERLAP_S, description="Seconds for which the present secret signs too."
    )

    @field_validator("overlap_s", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return whole(value)


class WebhookSecret(BaseModel):
    """What webhooks are signed with (standardwebhooks.com)."""

    secret: str = Field(description="`whsec_` and 32 bytes in base64.")


class WebhookBody(BaseModel):
    """What a webhook's receiver gets."""

    type: WebhookEvent
    truncated: list[str] | None = Field(
        None, description="Fields of `data` that are cut or left out, to stay under 20 kB; read the task."
    )
    timestamp: str = Field(description="When it happened; ISO 8601, UTC.")
    data: Task
