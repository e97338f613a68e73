"""What an engine is: the base class, what it is given and what it yields.

An engine turns one request into text. It knows nothing of Celery or Redis, so that it can be
called, tested and replaced on its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from textgen.lifecycle import Usage
from textgen.settings import Settings

FinishReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One attempt at a task, with every parameter settled or left to the engine (None)."""

    task_id: str
    #: 1 for the first attempt.
    attempt: int
    #: The conversation, oldest first: {`role`, `content`}. A plain prompt is one user message.
    messages: tuple[dict[str, str], ...]
    max_tokens: int
    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    #: What the text must be, as `textgen.formats` has it: {`type`, `name`, `schema` …}. None: any text.
    response_format: dict[str, Any] | None = None
    #: The submitter's own; engines other than the mock have no business with it.
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a provider says is left of one of its limits; None where it does not say."""

    limit: int | None = None
    remaining: int | None = None
    #: Seconds until all of it is there again.
    reset_s: float | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """What a provider's answer says of its limits for the key that was used."""

    requests: Allowance = Allowance()
    tokens: Allowance = Allowance()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of text, in order."""

    #: May be empty: a sign of life, at which a cancel can act.
    text: str
    #: Tokens that the piece stands for.
    tokens: int = 1
    #: Tokens of the prompt, where the engine knows them by now.
    prompt_tokens: int | None = None
    #: What the provider says is left, where it says so: with the first piece, once its answer begins.
    quota: Quota | None = None


#: A chance to stop, without text.
PULSE = Chunk("", tokens=0)


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a complete text: always the last thing yielded, exactly once."""

    reason: FinishReason
    usage: Usage
    #: Name of the model that wrote the text.
    model: str | None = None
    #: The provider's own id of the request, by which its support finds it.
    provider_request_id: str | None = None


class Engine(ABC):
    """A source of text. One instance serves all threads of its process."""

    #: The name users give in `engine`.
    name: ClassVar[str]
    #: Whether somebody else's server writes the text, so that its limits and outages are to be reckoned with.
    is_remote: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @classmethod
    def missing(cls, settings: Settings) -> str | None:
        """Say in one sentence what keeps this engine from working here, or None if nothing does.

        It must be cheap: no model is loaded and no provider is called.
        """
        return None

    @classmethod
    def default_model(cls, settings: Settings) -> str | None:
        """The model of requests that name none, as far as the settings tell."""
        return None

    @classmethod
    def account(cls, settings: Settings) -> str:
        """By what its provider counts: the same in all workers that use the same key. Holds nothing of it."""
        return cls.name

    def check(self) -> None:  # noqa: B027 - nothing to ask anybody is the ordinary case
        """Ask whoever has to be asked whether this engine can work: a provider for its models.

        Raises:
            EngineError: It cannot, or not just now.
        """

    def models(self) -> list[str]:
        """The models that it has, where somebody can be asked; raises as `check` does."""
        return []

    @classmethod
    def default_max_tokens(cls, settings: Settings) -> int:
        """Tokens of a text whose request names no number."""
        return settings.max_tokens

    def setup(self) -> None:  # noqa: B027 - nothing to load is the ordinary case
        """Load what generation needs; called once per process, after fork, before `generate`.

        Raises:
            EngineUnusable: The engine cannot work here; the message says what to do.
        """

    @abstractmethod
    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        """Generate text for `request`, piece by piece.

        The caller may stop at any piece by closing the iterator: the engine then stops working on
        the request. Every wait on a socket has a time-out.

        Yields:
            Any number of `Chunk`, then one `Finish`.

        Raises:
            TransientEngineError: Another attempt may succeed; carries `retry_after_s` if known.
            PermanentEngineError: No attempt can succeed; the message tells the user why.
        """
