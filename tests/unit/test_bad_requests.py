"""What cannot be a request is refused with the fields that are wrong, and without their values."""

from typing import Any

import pytest

from textgen.errors import InvalidRequest
from textgen.requests import parse_request

CANARY = "canary-7f3a"
DEEP: dict[str, Any] = {}
for _ in range(33):
    DEEP = {"in": DEEP}

BAD = {
    "nothing": ({}, "prompt"),
    "null prompt": ({"prompt": None}, "prompt"),
    "number for a prompt": ({"prompt": 5}, "prompt"),
    "list for a prompt": ({"prompt": [CANARY]}, "prompt"),
    "empty prompt": ({"prompt": ""}, "prompt"),
    "blank prompt": ({"prompt": " \n\t"}, "prompt"),
    "prompt that nobody sees": ({"prompt": "\u200b\u2060"}, "prompt"),
    "NUL": ({"prompt": f"{CANARY}\x00"}, "prompt"),
    "lone surrogate": ({"prompt": f"{CANARY}\ud800"}, "prompt"),
    "prompt too long": ({"prompt": CANARY * 20_000}, "prompt"),
    "both": ({"prompt": CANARY, "messages": [{"role": "user", "content": CANARY}]}, "prompt"),
    "no messages": ({"messages": []}, "messages"),
    "unknown role": ({"messages": [{"role": CANARY, "content": "x"}]}, "messages.0.role"),
    "unknown field": ({"prompt": "x", "max_token": 5}, "max_token"),
    "true for a number": ({"prompt": "x", "max_tokens": True}, "max_tokens"),
    "true for a temperature": ({"prompt": "x", "temperature": True}, "temperature"),
    "text for a number": ({"prompt": "x", "max_tokens": "5"}, "max_tokens"),
    "NaN": ({"prompt": "x", "temperature": float("nan")}, "temperature"),
    "infinity": ({"prompt": "x", "top_p": float("inf")}, "top_p"),
    "no tokens": ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
    "negative tokens": ({"prompt": "x", "max_tokens": -1}, "max_tokens"),
    "huge tokens": ({"prompt": "x", "max_tokens": 10**30}, "max_tokens"),
    "too hot": ({"prompt": "x", "temperature": 2.1}, "temperature"),
    "too many stops": ({"prompt": "x", "stop": ["a"] * 17}, "stop"),
    "too long a stop": ({"prompt": "x", "stop": [CANARY * 50]}, "stop.0"),
    "unknown engine": ({"prompt": "x", "engine": "nope"}, "engine"),
    "priority out of range": ({"prompt": "x", "priority": 10}, "priority"),
    "unknown lane": ({"prompt": "x", "lane": "fast"}, "lane"),
    "metadata no object": ({"prompt": "x", "metadata": [CANARY]}, "metadata"),
    "metadata too deep": ({"prompt": "x", "metadata": DEEP}, "metadata"),
    "metadata too large": ({"prompt": "x", "metadata": {"a": CANARY * 2000}}, "metadata"),
    "surrogate in metadata": ({"prompt": "x", "metadata": {"a": f"{CANARY}\udfff"}}, "metadata"),
    "NaN in metadata": ({"prompt": "x", "metadata": {"a": [float("nan")]}}, "metadata"),
    "object in metadata": ({"prompt": "x", "metadata": {"a": object()}}, "metadata"),
    "no time to live": ({"prompt": "x", "ttl_s": 0}, "ttl_s"),
    "no time at all": ({"prompt": "x", "deadline_s": -5}, "deadline_s"),
}


@pytest.mark.parametrize(("given", "field"), BAD.values(), ids=BAD)
def test_a_bad_request_names_the_field_and_never_its_value(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(given)
    assert field in [error["field"] for error in caught.value.errors]
    assert all(error["reason"] for error in caught.value.errors)
    assert CANARY not in str(caught.value)


def test_a_prompt_over_the_limit_is_told_both_numbers() -> None:
    with pytest.raises(InvalidRequest, match=r"has 100001 characters, over the limit of 100000"):
        parse_request({"prompt": "x" * 100_001})


def test_an_unknown_engine_is_told_those_that_exist() -> None:
    with pytest.raises(InvalidRequest, match="there are: anthropic, local, mock, openai"):
        parse_request({"prompt": "x", "engine": "nope"})


@pytest.mark.parametrize("prompt", ["שלום", "🙂", "مرحبا", "e\u0301", "{{7*7}}", "<b>x</b>"])
def test_any_script_is_fine(prompt: str) -> None:
    assert parse_request({"prompt": prompt}).as_kwargs() == {"prompt": prompt}
