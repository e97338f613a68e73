"""Whether a text is what was asked for, also where schema and text are out to take for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from textgen.formats import normalise
from textgen.structured import wrong


def check(schema: Any, text: str) -> str | None:
    wanted = normalise({"type": "json_schema", "schema": schema})
    assert wanted
    return wrong(wanted, text)


SCHEMA = {
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/small"}, "tags": {"items": {"enum": ["a", "b"]}}},
    "required": ["n"],
    "additionalProperties": False,
    "$defs": {"small": {"type": "integer", "maximum": 9}},
}


@pytest.mark.parametrize("text", ['{"n": 3}', ' {"n": 3.0, "tags": ["a", "b"]}\n'])
def test_a_text_that_fits_is_not_wrong(text: str) -> None:
    assert check(SCHEMA, text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("Here you are: {}", "not JSON"),
        ('{"n": 3', "not JSON"),
        ('{"n": NaN}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"n": ' + "9" * 5000 + "}", "not JSON"),
        ("{}", "`required`"),
        ('{"n": 10}', "`maximum`"),
        ('{"n": "canary"}', "`type`"),
        ('{"n": 1, "canary": 2}', "`additionalProperties`"),
        ('{"n": 1, "tags": ["canary"]}', "`enum`"),
    ],
)
def test_a_text_that_does_not_fit_is_told_by_its_rule_and_without_a_word_of_it(
    text: str, reason: str
) -> None:
    said = check(SCHEMA, text)
    assert said
    assert reason in said
    assert "canary" not in said


def test_any_object_is_just_that() -> None:
    assert wrong({"type": "json_object"}, '{"a": 1}') is None
    assert wrong({"type": "json_object"}, "[1]") == "the text is not a JSON object"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"$ref": "#"}, "1"),
        ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, "1"),
        ({"items": {"anyOf": [{"const": n} for n in range(400)]}}, json.dumps([-1] * 20_000)),
        ({"items": {"enum": list(range(3000))}}, json.dumps([-1] * 20_000)),
    ],
)
def test_a_check_ends_whatever_it_is_asked(schema: Any, text: str) -> None:
    assert check(schema, text)


def test_a_pattern_takes_no_longer_than_its_text() -> None:
    assert check({"pattern": "^(a+)+$"}, json.dumps("a" * 100_000 + "!")) == (
        "the text breaks the schema's rule `pattern`"
    )


def test_items_are_told_apart_in_one_pass_and_by_their_values() -> None:
    many: list[Any] = [{"n": n} for n in range(20_000)]
    assert check({"uniqueItems": True}, json.dumps(many)) is None
    assert check({"uniqueItems": True}, json.dumps([*many, {"n": 7.0}]))
    assert check({"uniqueItems": True}, "[1, true, 0, false]") is None


def test_a_number_past_all_reckoning_is_wrong_rather_than_an_error() -> None:
    assert check({"multipleOf": 0.5}, "1" * 4000)
