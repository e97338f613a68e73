"""One call to a provider: its errors, sorted once at the edge of the SDKs, and what its headers say.

Both SDKs are made by the same generator, so that their errors have the same names and shapes. What a
provider says about an error is not repeated: it may hold a part of the key or of the prompt. Its code,
one word for programs, may be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import ModuleType
from typing import Any

import httpx2

from textgen.engines import events
from textgen.engines.base import Chunk, Finish
from textgen.engines.ratelimits import quota_of, seconds_between, time_of
from textgen.engines.secrets import Secrets
from textgen.errors import EngineError, EngineUnusable, PermanentEngineError, TransientEngineError
from textgen.lifecycle import Usage
from textgen.settings import Settings

#: What passes by itself; so does every status from 500 on.
TRANSIENT = frozenset({408, 409, 429})
#: What says that a limit is reached: as a status, and in the middle of a stream.
THROTTLED = frozenset({429, 529})
THROTTLED_CODES = frozenset({"rate_limit_exceeded", "rate_limit_error", "overloaded_error"})
#: Seconds to connect.
CONNECT_S = 10.0
#: Seconds that a connection without a request is kept.
IDLE_S = 2.0
#: The longest pause that a provider can ask for, in seconds.
MAX_PAUSE_S = 3600.0
#: A text that is longer is no longer read: the longest tokens have 128 characters, all of them spaces.
CHARS_PER_TOKEN, SPARE_CHARS = 64, 10_000
#: Characters of a model's name.
MAX_NAME_CHARS = 200
#: A word for programs, such as `context_length_exceeded`; keys have longer numbers, or capitals.
_CODE = re.compile(r"(?=.{1,64}$)[a-z](?:[a-z_.]|(?<![0-9])[0-9]{1,3}(?![0-9]))*")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
#: What reading an answer raises that is not what it should be.
NONSENSE = (AttributeError, KeyError, TypeError, ValueError, RecursionError)
#: Turns the events of an answer into pieces of text.
Reader = Callable[[Iterable[dict[str, Any]]], Iterator[Chunk | Finish]]


def timeout(settings: Settings) -> httpx2.Timeout:
    """How long a provider may take to be reached, and to say anything at all."""
    return httpx2.Timeout(settings.provider_timeout_s, connect=CONNECT_S)


def cookies() -> CookieJar:
    """None are kept: all requests share a client, and no two have anything to do with each other."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def limits() -> httpx2.Limits:
    """As many connections as tasks run; idle ones end before servers that close them after 5 s do."""
    return httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_S)


@dataclass(slots=True)
class Exchange:
    """One request to a provider, and what is known of its answer."""

    #: The engine, for people.
    name: str
    #: The name of the setting of a field of its server.
    setting: Callable[[str], str]
    #: Seconds after which an answer without an event is given up.
    silence_s: float
    secrets: Secrets
    request_id: str | None = None

    def carry(self, response: httpx2.Response, read: Reader, max_tokens: int) -> Iterator[Chunk | Finish]:
        """Pass on what a stream says: first, that the answer has begun, and what is left of the limits.

        A text far beyond `max_tokens` ends there, with what there is of it.

        Raises:
            TransientEngineError: It ended without saying so, or says what nobody can read.
        """
        self.request_id = self.id_of(response.headers)
        yield Chunk("", 0, quota=quota_of(response.headers))
        left = SPARE_CHARS + CHARS_PER_TOKEN * max_tokens
        with self.reading():
            for piece in read(self._events(response)):
                if isinstance(piece, Finish):
                    model = self._name(piece.model)
                    yield replace(piece, model=model, provider_request_id=self.request_id)
                    return
                left -= len(piece.text)
                if left < 0:
                    piece = replace(piece, text=piece.text[:left])
                yield piece if piece.text.isascii() else replace(piece, text=_valid(piece.text))
                if left < 0:
                    yield Finish("length", Usage(), provider_request_id=self.request_id)
                    return
        raise TransientEngineError(f"{self.name} broke off before the end of the text")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn what goes wrong with an answer that is not what it should be into an error of engines."""
        try:
            yield
        except NONSENSE as exc:
            raise _nonsense(self.name, exc) from None

    def _events(self, response: httpx2.Response) -> Iterator[dict[str, Any]]:
        for event in events.read(response.iter_raw(), self.silence_s):
            if event.get("error"):
                raise self._broken_off(event)
            yield event

    def _name(self, told: Any) -> str | None:
        """`told`, if it can be the name of a model."""
        is_name = isinstance(told, str) and len(told) <= MAX_NAME_CHARS and told.isprintable()
        return told if is_name and not self.secrets.are_in(told) else None

    def id_of(self, headers: Mapping[str, str]) -> str | None:
        """The provider's own id of the request that `headers` answer."""
        for told in (headers.get("x-request-id", ""), headers.get("request-id", "")):
            if _REQUEST_ID.fullmatch(told) and not self.secrets.are_in(told):
                return told
        return None

    def code_of(self, told: Any) -> str:
        """The provider's word for an error, in front of which a colon."""
        body: dict[str, Any] = told if isinstance(told, dict) else {}
        inner = body["error"] if isinstance(body.get("error"), dict) else body
        for code in (inner.get("code"), inner.get("type")):
            if isinstance(code, str) and _CODE.fullmatch(code) and not self.secrets.are_in(code):
                return f": {code}"
        return ""

    def _broken_off(self, told: dict[str, Any]) -> TransientEngineError:
        code = self.code_of(told)
        error = TransientEngineError(f"{self.name} broke off{code}")
        error.is_throttled = code.removeprefix(": ") in THROTTLED_CODES
        return error


def _valid(text: str) -> str:
    """`text` without lone surrogates, which Redis could not carry."""
    return text.encode(errors="replace").decode()


@contextmanager
def sorted_errors(sdk: ModuleType, exchange: Exchange) -> Iterator[Exchange]:
    """Turn what a provider's SDK raises into errors of engines, with the provider's id of the request.

    Args:
        sdk: The module with its errors.
        exchange: The request; passed on.
    """
    try:
        with _translated(sdk, exchange):
            yield exchange
    except EngineError as exc:
        exc.provider_request_id = exc.provider_request_id or exchange.request_id
        raise


@contextmanager
def _translated(sdk: ModuleType, exchange: Exchange) -> Iterator[None]:
    name = exchange.name
    try:
        yield
    except EngineError:
        raise
    except sdk.APIStatusError as exc:
        error = _of_status(exc, exchange)
        error.provider_request_id = exchange.id_of(exc.response.headers)
        raise error from None
    except (sdk.APITimeoutError, httpx2.TimeoutException):
        raise TransientEngineError(f"{name} did not answer in time") from None
    except (sdk.APIConnectionError, httpx2.HTTPError) as exc:
        kind = type(exc.__cause__ or exc).__name__
        raise TransientEngineError(f"{name} cannot be reached, or hung up ({kind})") from None
    except sdk.APIError as exc:
        raise _nonsense(name, exc) from None
    except ValueError as exc:  # before anything was sent: what is said is read elsewhere
        kind = type(exc).__name__
        raise EngineUnusable(f"{name} cannot be asked for this model, or with this text ({kind})") from None


def _nonsense(name: str, exc: Exception) -> TransientEngineError:
    return TransientEngineError(f"{name} said what no provider says ({type(exc).__name__})")


def given(asked: dict[str, Any]) -> dict[str, Any]:
    """Only what was asked for: the rest is the provider's to choose."""
    return {name: value for name, value in asked.items() if value is not None}


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds that a provider asks to wait, by `retry-after-ms` or `Retry-After`; None: it does not."""
    for header, parts in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            if not math.isnan(told := float(headers[header]) / parts):
                return min(max(0.0, told), MAX_PAUSE_S)
    until, now = (time_of(headers.get(header, "")) for header in ("retry-after", "date"))
    return min(seconds_between(now, until), MAX_PAUSE_S) if now and until else None


def _of_status(exc: Any, exchange: Exchange) -> EngineError:
    name, status, code = exchange.name, exc.status_code, exchange.code_of(exc.body)
    if status < 400:
        return EngineUnusable(f"{name} is elsewhere: see {exchange.setting('base_url')} (status {status})")
    if status in TRANSIENT or status >= 500:
        error = TransientEngineError(f"{name} answered {status}{code}")
        error.retry_after_s = retry_after_s(exc.response.headers)
        error.is_throttled = status in THROTTLED
        return error
    if status in (401, 403):
        return EngineUnusable(
            f"{name} refuses the key: see {exchange.setting('api_key')} (status {status}){code}"
        )
    if status == 404:
        return EngineUnusable(f"{name} knows no such model, or its address is wrong (status 404){code}")
    return PermanentEngineError(f"{name} refuses the request (status {status}){code}")
