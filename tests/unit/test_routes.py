"""Which engines a request may go to, and in which order: the plan, without anything that runs."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from textgen import consumer, messages, routes
from textgen.errors import ConfigurationError, InvalidRequest
from textgen.lifecycle import Record, new_task_id
from textgen.requests import GenerationRequest, parse_request
from textgen.settings import Settings, get_settings
from textgen.store.answers import Terms

NAMED = {
    "smart": ["openai/gpt-5", "anthropic"],
    "spread": {"by": "weight", "engines": [{"engine": "openai", "weight": 3}, "anthropic"]},
    "cheap": {"by": "cost", "engines": ["openai/gpt-5", "local", "openai/gpt-5-nano", "anthropic"]},
}
PRICES = {
    "openai/gpt-5": {"prompt": 1.25, "completion": 10},
    "openai/gpt-5-nano": {"prompt": 0.05, "completion": 0.4},
    "anthropic": {"prompt": 3, "completion": 15},
}


def settings(**given: Any) -> Settings:
    return Settings(routes=json.dumps(NAMED), prices=json.dumps(PRICES), engine="mock", **given)


def record(engine: str | None = None, model: str | None = None, **fields: Any) -> Record:
    return Record(new_task_id(), prompt="Hello", params={"engine": engine, "model": model}, **fields)


def labels(record: Record) -> list[str]:
    return [entry.label for entry in routes.plan(record, settings())]


def left(record: Record) -> list[str]:
    return [entry.label for entry in routes.left(record, settings())]


@pytest.mark.parametrize(
    ("engine", "model", "planned"),
    [
        (None, None, ["mock"]),
        ("local", "small", ["local/small"]),
        ("openai,anthropic,local", None, ["openai", "anthropic", "local"]),
        ("openai, local", None, ["openai", "local"]),
        ("openai/gpt-5,openai", "gpt-5-nano", ["openai/gpt-5", "openai/gpt-5-nano"]),
        ("openai/gpt-5,openai", "gpt-5", ["openai/gpt-5"]),
        ("openai/meta/llama-4:free", None, ["openai/meta/llama-4:free"]),
        ("smart", "claude", ["openai/gpt-5", "anthropic/claude"]),
        ("cheap", None, ["openai/gpt-5-nano", "openai/gpt-5", "anthropic", "local"]),
    ],
)
def test_a_request_goes_to_these_engines_in_turn(
    engine: str | None, model: str | None, planned: list[str]
) -> None:
    assert labels(record(engine, model)) == planned


def test_a_default_route_is_for_requests_that_name_no_engine() -> None:
    chosen = Settings(engine="smart", routes=json.dumps(NAMED))
    assert [one.label for one in routes.plan(record(), chosen)] == ["openai/gpt-5", "anthropic"]
    assert len(routes.default(Settings(engine="openai, local")).entries) == 2
    with pytest.raises(ConfigurationError, match="TEXTGEN_ENGINE: entry 1 is not an engine"):
        routes.default(Settings(engine="opnai,local"))


def test_by_weight_each_begins_with_its_share_and_every_process_draws_the_same() -> None:
    records = [record("spread") for _ in range(2000)]
    firsts = Counter(labels(one)[0] for one in records)
    assert 1400 < firsts["openai"] < 1600
    assert all(labels(one) == labels(one) and len(labels(one)) == 2 for one in records[:50])


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ("nonsense", "is not an engine; there are: anthropic, local, mock, openai"),
        ("openai,", "entry 2 is not an engine"),
        ("openai,local,openai", "entry 3 was named before"),
        ("openai/a,openai/b,openai/a", "entry 3 was named before"),
        ("openai/", "has no usable name of a model behind its slash"),
        ("openai/two words", "has no usable name of a model behind its slash"),
        (",".join(f"openai/{n}" for n in range(9)), "names more than 8 engines"),
        ("smart,local", "entry 1 is not an engine"),
        ("openai, local", "has no blanks"),
        ("mock\n", "has no blanks"),
        (" mock", "has no blanks"),
    ],
)
def test_what_is_no_route_is_refused_with_the_reason(
    engine: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textgen.requests.get_settings", settings)
    with pytest.raises(InvalidRequest) as caught:
        parse_request({"prompt": "Hello", "engine": engine})
    assert caught.value.errors[0]["field"] == "engine"
    assert reason in caught.value.errors[0]["reason"]
    assert "nonsense" not in str(caught.value)


def test_the_description_of_a_request_takes_and_refuses_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textgen.requests.get_settings", settings)
    named, several, _ = GenerationRequest.model_json_schema()["properties"]["engine"]["anyOf"]
    assert {"mock", "smart"} <= set(named["enum"])
    for engine in ("openai", "openai/gpt-5,openai,local", ",".join(f"openai/{n}" for n in range(8))):
        assert re.search(several["pattern"], engine)
        parse_request({"prompt": "Hello", "engine": engine})
    for engine in ("openai,openai", "local,openai/a,mock,openai/a", "openai,", "x", "openai/", "openai/a b"):
        assert not re.search(several["pattern"], engine)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"x": []}, "TEXTGEN_ROUTES: x: names no engine"),
        ({"x": ["opnai"]}, "TEXTGEN_ROUTES: x: is not an engine"),
        ({"x": ["openai", "openai"]}, "TEXTGEN_ROUTES: x: entry 2 was named before"),
        ({"openai": ["local"]}, "TEXTGEN_ROUTES: openai: is the name of an engine"),
        ({"two words": ["local"]}, "TEXTGEN_ROUTES: two words"),
        ({"x": {"by": "luck", "engines": ["local"]}}, "ROUTES: x.by: .* 'order', 'weight' or 'cost'"),
        ({"x": {"engines": [{"engine": "local", "weight": 0}]}}, "ROUTES: x.engines.0.weight: "),
        ({"x": {"engine": ["local"]}}, "TEXTGEN_ROUTES: x.engines: Field required"),
        ({"x": "local"}, "TEXTGEN_ROUTES: x: must be an object, or what its `engines` would be"),
        ({"x": ["local", 7]}, "TEXTGEN_ROUTES: x.engines.1: must be an object, or what its `engine` would"),
    ],
)
def test_a_table_of_routes_that_is_wrong_says_where(table: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        routes.names(Settings(routes=json.dumps(table)))


# Rounds


def test_each_engine_has_one_try_in_a_round_and_a_failure_begins_the_next() -> None:
    task = record("openai,anthropic,local", "m")
    first, second, third = routes.plan(task, settings())
    task = task.but(attempt=1, tried=routes.noted(task, [(first, "down")], 1))
    assert left(task) == ["anthropic/m", "local/m"]
    assert routes.next_entry(task, settings()) == second
    task = task.but(tried=routes.noted(task, [(second, "circuit open")], 2, called=False))
    task = task.but(attempt=2, tried=routes.noted(task, [(third, "down")], 2))
    assert left(task) == []
    assert left(task.but(failures=1)) == ["openai/m", "anthropic/m", "local/m"]
    assert task.tried[1] == {
        "engine": "anthropic",
        "model": "m",
        "attempt": 2,
        "round": 0,
        "reason": "circuit open",
        "retryable": True,
        "called": False,
    }


def test_an_engine_that_was_only_passed_over_still_has_its_try() -> None:
    task = record("openai,anthropic,local", "m")
    first, second, _ = routes.plan(task, settings())
    passed = task.but(attempt=1, tried=routes.noted(task, [(first, "circuit open")], 1, called=False))
    assert left(passed) == ["openai/m", "anthropic/m", "local/m"]
    assert routes.next_entry(passed, settings()) == second
    assert routes.next_entry(passed.but(attempt=2), settings()) == first
    failed = passed.but(tried=routes.noted(passed, [(second, "down")], 1))
    assert left(failed) == ["local/m"]
    told = messages.header_of(failed, Terms(1000, 0, ""))["tried"]
    assert consumer._are_tries(told)
    assert left(task.but(tried=told)) == ["local/m"]


def test_what_was_tried_is_kept_within_bounds() -> None:
    task = record("mock")
    for attempt in range(1, 50):
        [entry] = routes.plan(task, settings())
        task = task.but(failures=attempt, tried=routes.noted(task, [(entry, "down")], attempt))
    assert len(task.tried) == routes.MAX_TRIED
    assert task.tried[-1]["attempt"] == 49


def test_what_a_record_says_of_itself_needs_no_route() -> None:
    assert [routes.is_plain(record(*asked), settings()) for asked in ((), ("local",), ("openai", "m"))] == [
        True
    ] * 3
    assert not any(
        routes.is_plain(record(name), settings()) for name in ("smart", "openai/m", "openai,local")
    )


def test_the_settings_of_this_run_have_no_routes() -> None:
    assert routes.names(get_settings()) == []
