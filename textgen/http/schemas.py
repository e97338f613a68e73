"""The models that parse parameters and describe answers; `textgen.requests` has the body's."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    field_validator,
)

from textgen.lifecycle import Lane, Status
from textgen.requests import WebhookEvent, describe_url, whole
from textgen.selection import MAX_PAGE, PAGE
from textgen.store.following import POSITION
from textgen.store.positions import PLACE
from textgen.webhooks.calls import MAX_OVERLAP_S, OVERLAP_S
from textgen.webhooks.guard import MAX_URL_CHARS


def _without_null(schema: dict[str, Any]) -> None:
    """Describe a parameter that can be left out as it is when it is not: no query holds a null."""
    (known,) = (one for one in schema.pop("anyOf") if one != {"type": "null"})
    schema |= known
    del schema["default"]


#: What the id of an event is, or of the last one.
EVENT_ID = rf"^({POSITION.pattern}|end)$"


class NoParameters(BaseModel):
    """A query string must be empty."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class WaitQuery(NoParameters):
    """How long to wait for the end of a task."""

    wait_s: float = Field(
        0, ge=0, le=60, allow_inf_nan=False, description="Seconds to wait for the end; 0 answers at once."
    )


class SubmitQuery(NoParameters):
    """Whether a submit is answered by the record, or by the task's events."""

    stream: Literal["sse", "text"] | None = Field(
        None, description="Answer with the events; `Accept: text/event-stream` is the same as `sse`."
    )
    cancel_on_disconnect: bool = Field(
        False, description="Cancel the task if the caller goes away before the end of the stream."
    )


class EventQuery(NoParameters):
    """How to follow a task."""

    stream: Literal["sse", "text"] = Field(
        "sse", description="Server-Sent Events, or nothing but the text, as it comes."
    )
    after: str | None = Field(
        None,
        pattern=EVENT_ID,
        description="Id of the event behind which to begin; `Last-Event-ID` goes before it.",
        json_schema_extra=_without_null,
    )
    cancel_on_disconnect: bool = Field(
        False, description="Cancel the task if the caller goes away before its end."
    )


class EventHeaders(BaseModel):
    """Where a broken stream is resumed."""

    last_event_id: str | None = Field(
        None,
        alias="Last-Event-ID",
        pattern=EVENT_ID,
        description="Id of the last event seen; browsers send it by themselves.",
        json_schema_extra=_without_null,
    )


class LimitQuery(NoParameters):
    """How many to list."""

    limit: int = Field(50, ge=1, le=1000, description="How many at the most.")


def _written_as_time(value: Any) -> Any:
    """Refuse what pydantic would take for a number of seconds."""
    if not re.match(r"\d{4}-\d\d-\d\d[Tt ]", str(value)):
        raise ValueError("must be a time such as 2026-11-02T09:30:00Z")
    return value


def _written_as_day(value: Any) -> Any:
    """As `_written_as_time`, for days."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)):
        raise ValueError("must be a day such as 2026-11-02")
    return value


Day = Annotated[date, BeforeValidator(_written_as_day)]


class ListQuery(BaseModel):
    """Which tasks to list; `metadata.<key>` comes besides."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    status: Status | None = Field(None, description="In this status.", json_schema_extra=_without_null)
    engine: str | None = Field(
        None,
        description="That asked for this engine by name, or were written by it.",
        json_schema_extra=_without_null,
    )
    created_after: Annotated[AwareDatetime, BeforeValidator(_written_as_time)] | None = Field(
        None,
        description="Submitted after this time: ISO 8601 with its zone.",
        json_schema_extra=_without_null,
    )
    limit: int = Field(PAGE, ge=1, le=MAX_PAGE, description="Tasks on a page at the most.")
    cursor: str | None = Field(
        None,
        pattern=rf"^{PLACE.pattern}$",
        description="`next_cursor` of the page before.",
        json_schema_extra=_without_null,
    )


class SubmitHeaders(BaseModel):
    """What a submit says beside its body; what is wrong with it is told apart from the body's fields."""

    prefer: str | None = Field(
        None,
        alias="Prefer",
        description="`wait=30`: answer when the task has ended, or after 30 s (RFC 7240); 60 at the most.",
    )


class TaskPath(BaseModel):
    """The id in the path. Whether it is one is the client's to say: a malformed id is an unknown one."""

    task_id: str = Field(description="Id of the task.", json_schema_extra={"format": "uuid"})


class TaskError(BaseModel):
    """Why a task failed."""

    type: str = Field(description="A stable word for programs.")
    message: str = Field(description="One sentence for people.")
    retryable: bool = Field(description="Whether the same request can succeed later.")


class TaskUsage(BaseModel):
    """What a generation consumed."""

    prompt_tokens: int = Field(description="All of them, cached ones included.")
    completion_tokens: int = Field(description="All of them, also those that the model only thought.")
    total_tokens: int
    cached_tokens: int = Field(description="Tokens of the prompt that came from a cache.")
    reasoning_tokens: int = Field(description="Tokens that the model thought and did not say.")
    cost_usd: float | None = Field(description="Dollars for all attempts, where a price is known.")


class TaskMessage(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class TaskWebhook(BaseModel):
    """What its webhook is told; the address is shown to nobody."""

    events: list[WebhookEvent]


class TaskParams(BaseModel):
    """How to generate, as it was asked for; null where it was left to the engine."""

    model_config = ConfigDict(extra="allow")

    engine: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: list[str] | None = None
    seed: int | None = None
    response_format: dict[str, Any] | None = Field(
        None, description="{`type`, `name`, `schema` …}, whichever shape it was submitted in."
    )
    cache: bool | None = None


class TaskTried(BaseModel):
    """An engine that did not write the text."""

    engine: str
    model: str | None = Field(description="The model asked for; null: the engine's own default.")
    attempt: int = Field(description="The attempt that tried it, or passed it over.")
    round: int = Field(description="Failures of the task before; in each round every engine gets one try.")
    reason: str = Field(description="Why, in a sentence or a few words.")
    retryable: bool = Field(description="Whether it may write another time.")


class Task(BaseModel):
    """A task: the same object that stands in the store."""

    task_id: str = Field(json_schema_extra={"format": "uuid"})
    status: Status = Field(description="COMPLETED, FAILED and CANCELLED are final.")
    prompt: str | None
    messages: list[TaskMessage] | None
    params: TaskParams
    metadata: dict[str, Any] = Field(description="The submitter's own.")
    owner: str
    priority: int = Field(description="9 is the most urgent.")
    lane: Lane
    result: str | None = Field(description="The text; of a cancelled or failed task, as far as it came.")
    error: TaskError | None
    finish_reason: str | None = Field(description="`stop`, `length` or `content_filter`.")
    usage: TaskUsage | None
    engine: str | None = Field(description="The engine that wrote the text.")
    model: str | None = Field(description="The model that wrote the text.")
    provider_request_id: str | None = Field(description="By which the provider's support finds it.")
    attempt: int = Field(description="Attempts begun so far.")
    failures: int = Field(description="Attempts that failed.")
    tried: list[TaskTried] = Field(
        description="The newest engines that were tried in vain, or passed over, oldest first."
    )
    cached: bool = Field(description="Whether a text answers it that was written for the same request.")
    replay_of: str | None = Field(description="The task that this one repeats.")
    webhook: TaskWebhook | None
    created_at: str | None = Field(description="ISO 8601, UTC; so are all times.")
    started_at: str | None
    updated_at: str | None
    finished_at: str | None
    deadline: str | None = Field(description="The task fails if it has not ended by then.")
    v: int = Field(description="Version of this object.")
    queue_position: int | None = Field(
        None, description="Of a PENDING task: about how many are served up to it; null where unknown."
    )
    eta_s: float | None = Field(
        None, description="Of a PENDING task: in about how many seconds it starts; null where unknown."
    )


class TaskList(BaseModel):
    """A page of a list of tasks, newest first."""

    data: list[Task]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last.")


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


class UsageQuery(NoParameters):
    """Which days."""

    model_config = ConfigDict(populate_by_name=True)

    first: Day | None = Field(
        None,
        alias="from",
        description="First day, UTC (YYYY-MM-DD); by default 29 days before the last.",
        json_schema_extra=_without_null,
    )
    last: Day | None = Field(
        None, alias="to", description="Last day; by default today.", json_schema_extra=_without_null
    )


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
