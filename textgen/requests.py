"""What a submitter may ask for: the one model that validates requests, whatever way they came.

HTTP, CLI, `.delay()` and messages of foreign producers all pass through `GenerationRequest`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.types import Strict

from textgen import engines, formats, routes
from textgen.errors import AddressRefused, InvalidRequest
from textgen.settings import get_settings
from textgen.webhooks import guard

#: Levels of nesting allowed in `metadata`.
MAX_METADATA_DEPTH = 32
#: Stop sequences of one request, and the characters of one.
MAX_STOPS, MAX_STOP_CHARS = 16, 200
#: Characters of a list of engines.
MAX_ENGINE_CHARS = 500


@dataclass(frozen=True)
class WithPattern:
    """Describes a string by a pattern; another annotation checks it, and says better what is wrong."""

    pattern: str

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | {"pattern": self.pattern}


#: What nobody sees: controls, spaces, and characters of no width (categories Cc, Cf and Z of Unicode 15).
_UNSEEN = (
    "\\u0000-\\u0020\\u007f-\\u00a0\\u00ad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u1680"
    "\\u180e\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u2064\\u2066-\\u206f\\u3000\\ufeff\\ufff9-\\ufffb"
    "\U000110bd\U000110cd\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f"
)
#: The patterns of texts and prompts, as JSON Schema and Python both read them.
TEXT = "^[^\\u0000]*$"
PROMPT = f"^[^\\u0000]*[^{_UNSEEN}][^\\u0000]*$"
_TEXT, _PROMPT = re.compile(TEXT), re.compile(PROMPT)


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("contains a lone surrogate, which is not text") from None
    return value


def _text(value: str) -> str:
    if not _TEXT.fullmatch(value):
        raise ValueError("must not contain NUL")
    return _encodable(value)


def _prompt(value: str) -> str:
    if not _PROMPT.fullmatch(value):
        raise ValueError("must contain some visible text")
    return value


def whole(value: Any) -> Any:
    """Take 3.0 for 3, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Model = TypeVar("Model", bound=BaseModel)
Text = Annotated[StrictStr, AfterValidator(_text), WithPattern(TEXT)]
Prompt = Annotated[Text, AfterValidator(_prompt), WithPattern(PROMPT)]
WebhookEvent = Literal["task.processing", "task.completed", "task.failed", "task.cancelled"]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]


def describe_url(schema: dict[str, Any]) -> None:
    """Describe the address of a webhook: by a pattern, where the settings allow none but public ones."""
    if not get_settings().webhook_allow:
        schema["pattern"] = guard.public_url(get_settings())


def _describe_engine(schema: dict[str, Any]) -> None:
    named = [*engines.names(), *routes.names(get_settings())]
    several = {"type": "string", "maxLength": MAX_ENGINE_CHARS, "pattern": routes.pattern()}
    schema["anyOf"] = [{"type": "string", "enum": named}, several, {"type": "null"}]


def _describe_stop(schema: dict[str, Any]) -> None:
    of_each = schema["anyOf"][0]["items"]
    schema["anyOf"].insert(1, dict(of_each))


def _describe_format(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [*formats.DESCRIPTION, {"type": "null"}]


def _describe_max_tokens(schema: dict[str, Any]) -> None:
    schema["anyOf"][0]["maximum"] = get_settings().max_tokens_limit


def _describe_request(schema: dict[str, Any]) -> None:
    """Say that there is either a prompt or messages, and how long a prompt may be."""
    prompt, messages = (schema["properties"][name] for name in ("prompt", "messages"))
    prompt["anyOf"][0]["maxLength"] = get_settings().max_prompt_chars
    null, given = {"type": "null"}, [{**one["anyOf"][0]} for one in (prompt, messages)]
    schema["oneOf"] = [
        {"required": ["prompt"], "properties": {"prompt": given[0], "messages": null}},
        {"required": ["messages"], "properties": {"messages": given[1], "prompt": null}},
    ]


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    role: Literal["system", "user", "assistant"]
    content: Prompt


class Webhook(BaseModel):
    """Where to report what becomes of the task, and which events (standardwebhooks.com)."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: StrictStr = Field(
        min_length=1,
        max_length=guard.MAX_URL_CHARS,
        description="A public https address.",
        json_schema_extra=describe_url,
    )
    events: list[WebhookEvent] = Field(
        default=["task.completed", "task.failed", "task.cancelled"],
        min_length=1,
        max_length=len(get_args(WebhookEvent)),
        description="What to report.",
    )

    @field_validator("url")
    @classmethod
    def _url_is_one(cls, value: str) -> str:
        try:
            guard.check(value, get_settings())
        except AddressRefused as exc:
            raise ValueError(str(exc)) from None
        return value


class GenerationRequest(BaseModel):
    """A request for text: one of `prompt` and `messages`, and how to generate."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, json_schema_extra=_describe_request
    )

    prompt: Prompt | None = Field(None, description="The text to go on from, or the user's question.")
    messages: list[Message] | None = Field(
        None, min_length=1, max_length=1000, description="A conversation, instead of `prompt`."
    )
    engine: StrictStr | None = Field(
        None,
        min_length=1,
        max_length=MAX_ENGINE_CHARS,
        description="Name of the engine, or of a route; or several, such as `openai/gpt-5,anthropic`, which "
        "are tried in turn; the default if left out.",
        json_schema_extra=_describe_engine,
    )
    model: Text | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Model of the engine, or of those of a route for which it names none; the engine's own "
        "default if left out.",
    )
    max_tokens: StrictInt | None = Field(
        None, ge=1, description="Tokens to generate at the most.", json_schema_extra=_describe_max_tokens
    )
    temperature: Number | None = Field(None, ge=0, le=2, description="Randomness; 0 is deterministic.")
    top_p: Number | None = Field(None, gt=0, le=1, description="Share of probability sampled from.")
    stop: list[Annotated[Text, Field(min_length=1, max_length=MAX_STOP_CHARS)]] | None = Field(
        None,
        max_length=MAX_STOPS,
        description="Texts at which generation ends.",
        json_schema_extra=_describe_stop,
    )
    seed: StrictInt | None = Field(None, ge=0, le=2**32 - 1, description="Makes sampling repeatable.")
    response_format: dict[StrictStr, Any] | None = Field(
        None,
        description="JSON that the text must be: by a JSON Schema, or any object. In OpenAI's shapes.",
        json_schema_extra=_describe_format,
    )
    cache: StrictBool | None = Field(
        None,
        description="Whether a text written for the same request may answer it; if left out, where "
        "`temperature` is 0 or a `seed` is given.",
    )
    priority: StrictInt = Field(5, ge=0, le=9, description="9 is the most urgent.")
    lane: Literal["interactive", "bulk"] = Field("interactive", description="Which queue it waits in.")
    metadata: dict[StrictStr, Any] = Field(default_factory=dict, description="Anything of your own.")
    ttl_s: StrictInt | None = Field(
        None, ge=1, le=31_536_000, description="Seconds that the finished task can be read."
    )
    deadline_s: StrictInt | None = Field(
        None, ge=1, le=2_592_000, description="Seconds from now in which it must end."
    )
    webhook: Webhook | None = Field(None, description="Who is told when the task has ended.")
    queue_timeout_s: StrictInt | None = Field(
        None, ge=1, le=2_592_000, description="Seconds that it may wait for its first attempt."
    )
    attempt_timeout_s: StrictInt | None = Field(
        None,
        ge=1,
        le=86_400,
        description="Seconds an attempt may take, within the worker's own limit.",
    )

    @field_validator(
        *("max_tokens", "seed", "priority", "ttl_s", "deadline_s", "queue_timeout_s", "attempt_timeout_s"),
        mode="before",
    )
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return whole(value)

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("engine")
    @classmethod
    def _engine_exists(cls, value: str | None) -> str | None:
        if value is not None:
            routes.find(value, get_settings())
            if re.search(r"\s", value):  # settings may have them
                raise ValueError("has no blanks, not even behind its commas")
        return value

    @field_validator("max_tokens")
    @classmethod
    def _tokens_within_limit(cls, value: int | None) -> int | None:
        limit = get_settings().max_tokens_limit
        if value is not None and value > limit:
            raise ValueError(f"must be at most {limit}")
        return value

    @field_validator("response_format")
    @classmethod
    def _format_can_be_kept_to(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is None:
            return None
        _check_json(value, formats.MAX_DEPTH + 2)
        return formats.normalise(value)

    @field_validator("metadata")
    @classmethod
    def _metadata_within_limits(cls, value: dict[str, Any]) -> dict[str, Any]:
        _check_json(value, MAX_METADATA_DEPTH)
        size, limit = len(json.dumps(value, ensure_ascii=False).encode()), get_settings().max_metadata_bytes
        if size > limit:
            raise ValueError(f"is {size} bytes as JSON, over the limit of {limit}")
        return value

    @model_validator(mode="after")
    def _one_of_prompt_and_messages(self) -> GenerationRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        size, limit = self.prompt_chars, get_settings().max_prompt_chars
        if size > limit:
            raise ValueError(f"the prompt has {size} characters, over the limit of {limit}")
        return self

    @property
    def prompt_chars(self) -> int:
        """Characters of the prompt, or of all messages together."""
        return len(self.prompt or "") + sum(len(message.content) for message in self.messages or ())

    @property
    def params(self) -> dict[str, Any]:
        """How to generate: the record's `params`."""
        how = ("max_tokens", "temperature", "top_p", "stop", "seed", "response_format", "cache")
        return {name: getattr(self, name) for name in ("engine", "model", *how)}

    def as_kwargs(self) -> dict[str, Any]:
        """The arguments of the Celery task that ask for the same: only what was set."""
        return self.model_dump(exclude_none=True, exclude_defaults=True)


def _check_json(value: Any, depth: int) -> None:
    """Raise ValueError unless `value` is plain JSON of at most `depth` levels."""
    if depth < 0:
        raise ValueError("is nested too deep")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("must have strings as keys")
        for key, item in value.items():
            _encodable(key)
            _check_json(item, depth - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_json(item, depth - 1)
    elif isinstance(value, str):
        _encodable(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("contains a number that JSON does not have")
    elif not isinstance(value, (bool, int, float, type(None))):
        raise ValueError("must be plain JSON")


def parse_request(given: dict[str, Any]) -> GenerationRequest:
    """Validate what a submitter gave, as `parse` does."""
    return parse(GenerationRequest, given)


def parse(model: type[Model], given: dict[str, Any]) -> Model:
    """Validate what somebody gave.

    Args:
        model: What it should be.
        given: Field name → value, of any type.

    Raises:
        InvalidRequest: With one entry for each field that is wrong; no entry holds a value.
    """
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        raise InvalidRequest.of(*field_errors(exc)) from None


def field_errors(exc: ValidationError) -> list[dict[str, str]]:
    """Turn pydantic's errors into `{"field", "reason"}` objects, without the values."""
    listed = []
    for error in exc.errors(include_input=False, include_url=False, include_context=False):
        name = ".".join(str(part) for part in error["loc"]) or "body"
        if "prompt has" in error["msg"] or "either prompt" in error["msg"]:
            name = "prompt"
        listed.append({"field": name, "reason": error["msg"].removeprefix("Value error, ")})
    return listed
