"""The models that describe a task in answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from textgen.lifecycle import Lane, Status
from textgen.requests import WebhookEvent


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
    called: bool = Field(True, description="Whether it was called, rather than passed over.")


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
