"""What is read out of the headers of providers: their own notations, and nonsense."""

from __future__ import annotations

import pytest

from textgen.engines.base import Allowance, Quota
from textgen.engines.provider import retry_after_s
from textgen.engines.ratelimits import quota_of


def openai(kind: str = "requests", **told: str) -> dict[str, str]:
    return {f"x-ratelimit-{name}-{kind}": value for name, value in told.items()}


def anthropic(kind: str, **told: str) -> dict[str, str]:
    return {f"anthropic-ratelimit-{kind}-{name}": value for name, value in told.items()}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("1s", 1), ("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3723.5), ("2d", 86_400), ("7", 7)),
        *(("", None), ("soon", None), ("-1s", None), ("1s soon", None), ("1" * 65 + "s", None)),
    ],
)
def test_resets_as_openai_writes_them(text: str, seconds: float | None) -> None:
    found = quota_of(openai(limit="9", reset=text))
    assert found is not None
    assert found.requests.reset_s == (seconds if seconds is None else pytest.approx(seconds))


def test_resets_as_anthropic_writes_them_are_by_its_own_clock() -> None:
    headers = anthropic("requests", limit="5", remaining="4", reset="2026-11-02T09:31:00Z")
    found = quota_of(headers | {"date": "Mon, 02 Nov 2026 09:30:00 GMT"})
    assert found == Quota(requests=Allowance(5, 4, 60.0))
    past = quota_of(headers | {"date": "Mon, 02 Nov 2026 09:40:00 GMT"})
    assert past is not None
    assert past.requests.reset_s == 0


@pytest.mark.parametrize(
    ("date", "reset", "seconds"),
    [
        ("Mon, 02 Nov 2026 09:30:00 -0000", "2026-11-02T09:31:00Z", 60),
        ("Mon, 02 Nov 2026 09:30:00 GMT", "2026-11-02T09:31:00", 60),
        ("Mon, 02 Nov 99999999999999999999 09:30:00 GMT", "2026-11-02T09:31:00Z", None),
        ("Mon, 02 Nov 2026 09:30:00 GMT", "9999-12-31T23:59:59-23:59", 86_400),
        ("soon", "2026-11-02T09:31:00Z", None),
    ],
)
def test_odd_times_are_read_or_not_known(date: str, reset: str, seconds: float | None) -> None:
    found = quota_of(anthropic("requests", limit="5", reset=reset) | {"date": date})
    assert found is not None
    assert found.requests.reset_s == seconds


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        *(("Mon, 02 Nov 2026 09:31:00 -0000", 60), ("Mon, 02 Nov 2026 10:31:00 +0100", 60)),
        *(("Mon, 02 Nov 99999999999999999999 09:31:00 GMT", None), ("Mon, 02 Nov 9999 09:31:00 GMT", 3600)),
        *(("nan", None), ("inf", 3600), ("-7", 0), ("1e400", 3600), ("", None), ("0" * 5000, 0)),
    ],
)
def test_a_pause_that_is_asked_for_is_read_or_not_known(told: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": told, "date": "Mon, 02 Nov 2026 09:30:00 GMT"}) == seconds


def test_of_two_kinds_of_tokens_the_scarcer_one_counts() -> None:
    read = anthropic("input-tokens", limit="1000", remaining="900")
    written = anthropic("output-tokens", limit="100", remaining="20")
    assert quota_of(read | written) == Quota(tokens=Allowance(100, 20))
    whole = anthropic("tokens", limit="1100", remaining="920")
    assert quota_of(read | written | whole) == Quota(tokens=Allowance(1100, 920))


@pytest.mark.parametrize("value", ["", "many", "-3", "1e9", "9" * 16, "٣"])
def test_what_is_no_number_is_not_known(value: str) -> None:
    assert quota_of(openai(limit=value)) is None


def test_other_headers_say_nothing() -> None:
    assert quota_of({"x-ratelimit-limit": "20", "content-type": "text/html"}) is None
