"""The models that parse queries, headers and paths; `textgen.requests` has the body's."""

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
)

from textgen.lifecycle import Status
from textgen.selection import MAX_PAGE, PAGE
from textgen.store.following import POSITION
from textgen.store.positions import PLACE

#: What the id of an event is, or of the last one.
EVENT_ID = rf"^({POSITION.pattern}|end)$"


def _without_null(schema: dict[str, Any]) -> None:
    """Describe a parameter that can be left out as it is when it is not: no query holds a null."""
    (known,) = (one for one in schema.pop("anyOf") if one != {"type": "null"})
    schema |= known
    del schema["default"]


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
