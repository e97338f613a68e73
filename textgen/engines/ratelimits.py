"""What the headers of a provider's answer say of its limits, as each of the two kinds has them.

OpenAI: developers.openai.com/api/docs/guides/rate-limits, "Rate limits in headers".
Anthropic: platform.claude.com/docs/en/api/rate-limits, "Response headers".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from textgen.engines.base import Allowance, Quota

#: A time as OpenAI writes it: `1s`, `6m0s`, `20ms`, `1h2m3.5s`.
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
#: The longest reset that is believed, in seconds.
MAX_RESET_S = 86_400.0
NOTHING = Allowance()


def quota_of(headers: Mapping[str, str]) -> Quota | None:
    """What `headers` say is left for the key that was used; None: nothing."""
    requests = _openai(headers, "requests") or _anthropic(headers, "requests")
    tokens = _openai(headers, "tokens") or _anthropic_tokens(headers)
    if requests is None and tokens is None:
        return None
    return Quota(requests or NOTHING, tokens or NOTHING)


def _openai(headers: Mapping[str, str], kind: str) -> Allowance | None:
    limit, remaining, reset = (
        headers.get(f"x-ratelimit-{name}-{kind}") for name in ("limit", "remaining", "reset")
    )
    return _known(Allowance(_count(limit), _count(remaining), _duration_s(reset)))


def _anthropic(headers: Mapping[str, str], kind: str) -> Allowance | None:
    limit, remaining, reset = (
        headers.get(f"anthropic-ratelimit-{kind}-{name}") for name in ("limit", "remaining", "reset")
    )
    return _known(Allowance(_count(limit), _count(remaining), _until_s(reset, headers.get("date"))))


def _anthropic_tokens(headers: Mapping[str, str]) -> Allowance | None:
    """Of all tokens; where only those read and written are told, the one with the smaller share left."""
    whole = _anthropic(headers, "tokens")
    parts = (_anthropic(headers, "input-tokens"), _anthropic(headers, "output-tokens"))
    return whole or min((part for part in parts if part), key=_share_left, default=None)


def _share_left(allowance: Allowance) -> float:
    if allowance.remaining is None:
        return 1.0
    return allowance.remaining / (allowance.limit or 1)


def _known(allowance: Allowance) -> Allowance | None:
    return None if allowance == NOTHING else allowance


def _count(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,15}", text) else None


def _duration_s(text: str | None) -> float | None:
    """Seconds in OpenAI's notation; a bare number is seconds, too, as some servers have it."""
    if text and re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return min(float(text), MAX_RESET_S)
    if not text or len(text) > 64 or not _DURATION.fullmatch(text):
        return None
    return min(sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text)), MAX_RESET_S)


def _until_s(text: str | None, date: str | None) -> float | None:
    """Seconds until a time of RFC 3339, from the moment of the answer by the provider's own clock."""
    try:
        until = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    now = time_of(date) if date else datetime.now(UTC)
    return None if now is None else min(seconds_between(now, until), MAX_RESET_S)


def time_of(text: str) -> datetime | None:
    """A time as headers of HTTP have it; None: it is none."""
    try:
        return parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None


def seconds_between(now: datetime, until: datetime) -> float:
    """The seconds from `now` to `until`, 0 once it is over; where one has no zone, that is UTC."""
    begins, ends = (time if time.tzinfo else time.replace(tzinfo=UTC) for time in (now, until))
    return max(0.0, (ends - begins).total_seconds())
