"""Which requests are cacheable, and which are the same."""

from __future__ import annotations

from typing import Any

import pytest

from textgen.caching import has_sequel, place_of
from textgen.engines.mock import MockEngine
from textgen.lifecycle import new_task_id
from textgen.messages import new_record
from textgen.requests import parse_request
from textgen.settings import Settings
from textgen.store.cache import Place

SETTINGS = Settings(engine="mock")


def place(settings: Settings = SETTINGS, owner: str = "ann", **request: Any) -> Place | None:
    given = {"prompt": "Hello", **request}
    asked = parse_request({name: value for name, value in given.items() if value is not None})
    return place_of(new_record(asked, new_task_id(), owner), settings)


@pytest.mark.parametrize(
    ("request_fields", "is_cacheable"),
    [
        ({}, False),
        ({"temperature": 0.5}, False),
        ({"temperature": 0}, True),
        ({"seed": 0}, True),
        ({"cache": True}, True),
        ({"cache": True, "temperature": 1.5}, True),
        ({"cache": False, "seed": 1}, False),
    ],
)
def test_what_is_deterministic_or_asks_for_it_is_cacheable(
    request_fields: dict[str, Any], is_cacheable: bool
) -> None:
    assert (place(**request_fields) is not None) is is_cacheable
    assert place(Settings(engine="mock", cache_ttl_s=0), **request_fields) is None


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"order": 17}},
        {"priority": 9},
        {"lane": "bulk"},
        {"ttl_s": 5},
        {"deadline_s": 5, "attempt_timeout_s": 5, "queue_timeout_s": 5},
        {"webhook": {"url": "https://example.com/hook"}},
        {"cache": True},
        {"temperature": 0.0},
        {"engine": "mock"},
        {"prompt": None, "messages": [{"role": "user", "content": "Hello"}]},
    ],
)
def test_what_says_nothing_of_the_text_makes_no_difference(more: dict[str, Any]) -> None:
    assert place(**{"temperature": 0} | more) == place(temperature=0)


@pytest.mark.parametrize(
    "more",
    [
        {"prompt": "Hello "},
        {"seed": 1},
        {"top_p": 0.5},
        {"max_tokens": 7},
        {"stop": ["."]},
        {"model": "other"},
        {"engine": "openai"},
        {"temperature": 0.1, "cache": True},
        {"prompt": None, "messages": [{"role": "system", "content": "Hello"}]},
        {"prompt": None, "messages": [{"role": "user", "content": "Hello"}] * 2},
    ],
)
def test_what_the_text_depends_on_makes_a_difference(more: dict[str, Any]) -> None:
    assert place(**{"temperature": 0} | more) != place(temperature=0)


def test_a_model_that_is_set_for_all_counts_like_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MockEngine, "default_model", classmethod(lambda _, settings: settings.openai_model))

    def of(default: str, **request: Any) -> Place | None:
        return place(Settings(engine="mock", openai_model=default), seed=1, **request)

    assert of("small") != of("large")
    assert of("small", model="large") == of("large", model="large")


def test_owners_are_apart_unless_they_share() -> None:
    assert place(seed=1, owner="ann") != place(seed=1, owner="bob")
    shared = Settings(engine="mock", cache_shared=True)
    assert place(shared, seed=1, owner="ann") == place(shared, seed=1, owner="bob")


def test_nothing_of_the_request_is_readable_in_its_place() -> None:
    found = place(seed=1, prompt="canary-7f3a")
    assert found is not None
    assert "canary" not in found.digest
    assert len(found.digest) == 64


@pytest.mark.parametrize(("envelope", "expected"), [('{"chain": [{}]}', True), ('{"root_id": "x"}', False)])
def test_a_task_whose_message_others_wait_for_has_a_sequel(envelope: str, expected: bool) -> None:
    assert has_sequel(envelope) is expected
