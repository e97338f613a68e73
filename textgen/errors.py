"""Every error that textgen raises on purpose, sorted by cause under one root.

An error that may cross a process boundary takes one message argument, because an exception is
rebuilt from its arguments on the other side. Messages never hold a prompt, a result or a key.
"""

from __future__ import annotations

import math
from typing import Self


class TextgenError(Exception):
    """The root of every error of this package; catch it to catch them all."""


class ConfigurationError(TextgenError):
    """A setting is missing, contradictory or unusable; its message names the setting."""


class InvalidRequest(TextgenError):
    """What was submitted cannot be a generation request; the submitter corrects the fields named.

    Attributes:
        errors: One `{"field": …, "reason": …}` for each thing that is wrong; never its value.
    """

    errors: tuple[dict[str, str], ...] = ()

    @classmethod
    def of(cls, *errors: dict[str, str]) -> InvalidRequest:
        """Make the error whose message lists all of `errors`."""
        made = cls("; ".join(f"{error['field']}: {error['reason']}" for error in errors))
        made.errors = errors
        return made


class AddressRefused(TextgenError):
    """Webhooks may not be sent to this address; the message says why, without the address."""


class SecretShown(TextgenError):
    """The webhook secret was shown before; rotate it to be shown a new one."""


class Unauthenticated(TextgenError):
    """No API key came along, or one that is unknown or has expired; ask an operator for one."""


class Forbidden(TextgenError):
    """The API key does not have the scope for this; the message names it."""


class DuplicateTask(TextgenError):
    """The task id given was used before, for another request or one that was not accepted.

    Leave it out or choose a new one.
    """


class IdempotencyKeyReused(TextgenError):
    """The idempotency key was used before, for another request; choose a new key."""


class UnknownTask(TextgenError):
    """No task has this id, or its record has expired."""


class TaskFinished(TextgenError):
    """The task has already reached another terminal state, so this can no longer be done."""


class TaskUnfinished(TextgenError):
    """The task still waits or runs, so this cannot be done yet; cancel it first, or wait for its end."""


class GenerationFailed(TextgenError):
    """The task ended in FAILED; the message is the record's error."""


class WaitTimeout(TextgenError):
    """The task was not terminal when the wait was over; it goes on, and can be read later."""


class Unavailable(TextgenError):
    """A part of the system cannot be reached; repeat the call later.

    Attributes:
        retry_after_s: Seconds after which a repeated call is worth while.
    """

    retry_after_s: int = 5


class SubmitInFlight(Unavailable):
    """The first request with this idempotency key is still being accepted; repeat it a little later."""

    retry_after_s = 1


class LimitExceeded(Unavailable):
    """A limit of the caller, or of all together, is reached for the moment; nothing was queued.

    Attributes:
        limit: Which one: `requests_per_minute`, `tokens_per_minute`, `tasks`, `budget`.
    """

    limit: str = ""

    @classmethod
    def of(cls, message: str, limit: str, retry_after_s: float) -> Self:
        """Make the error of limit `limit`, which allows another try in `retry_after_s` seconds."""
        made = cls(message)
        made.limit = limit
        made.retry_after_s = max(1, math.ceil(retry_after_s))
        return made


class QueueFull(LimitExceeded):
    """As many tasks wait as may; nothing was queued."""


class BudgetExhausted(LimitExceeded):
    """What may be used in this day or month is used up; the next one begins in `retry_after_s` seconds."""


class BrokerUnavailable(Unavailable):
    """The broker did not take the message in time; nothing of the submit will become visible."""


class StoreUnavailable(Unavailable):
    """Redis did not answer, or refused to write; nothing was queued."""


class StoreBroken(StoreUnavailable):
    """Redis was asked for what it can never do: a bug, or foreign data under our keys. Not to be repeated."""


class StoreForbidden(StoreUnavailable):
    """Redis' access control forbids it to this user; the message says what to grant, and to whom."""


class EngineError(TextgenError):
    """An engine could not generate; the leaves say whether another attempt can help.

    Attributes:
        provider_request_id: The provider's own id of the request, where there was one.
        word: How the record's `error` names it; empty: as the class.
    """

    provider_request_id: str | None = None
    word: str = ""


class TransientEngineError(EngineError):
    """The attempt failed for a cause that passes; the task is tried again later.

    Attributes:
        retry_after_s: Seconds that the provider asked to wait, or None where it named none.
        is_throttled: Whether a limit of the provider's is reached, so that every worker had better wait.
    """

    retry_after_s: float | None = None
    is_throttled: bool = False

    @classmethod
    def after(cls, message: str, retry_after_s: float, is_throttled: bool = False) -> TransientEngineError:
        """Make the error of a provider that said when to come back."""
        made = cls(message)
        made.retry_after_s, made.is_throttled = retry_after_s, is_throttled
        return made


class PermanentEngineError(EngineError):
    """The request can never succeed with this engine as it stands; the task is FAILED at once."""


class EngineUnusable(PermanentEngineError):
    """The engine cannot work until somebody changes a setting (a key, a model, its package), or cannot do
    what the request asks for though others may (a seed, where the provider knows none).

    Of a route the next engine is tried; without one the task is FAILED at once.
    """


class InvalidOutput(TransientEngineError):
    """The text is not what `response_format` asks for; another attempt may do better."""

    word = "invalid_output"


class UnfinishedOutput(PermanentEngineError):
    """The text ended before it could be what `response_format` asks for; ask for it in another way."""

    word = "invalid_output"
