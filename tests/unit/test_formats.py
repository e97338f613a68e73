"""What `response_format` may be: its shapes, and schemas that are out to do harm."""

from __future__ import annotations

import time
from typing import Any

import jsonschema
import pytest

from textgen import formats
from textgen.errors import InvalidRequest
from textgen.requests import parse_request

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
FLAT = {"type": "json_schema", "name": "answer", "schema": SCHEMA}


def of(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "schema": schema}


def chain(length: int, wide: int = 2) -> dict[str, Any]:
    """A schema of a few bytes that is 2 to the power of `length` schemas when it is written out."""
    links = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * wide} for n in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"type": "string"}}}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
        {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": None}},
        of(SCHEMA),
        FLAT,
    ],
)
def test_every_shape_becomes_the_same(given: dict[str, Any]) -> None:
    assert formats.normalise(given) == FLAT
    assert parse_request({"prompt": "x", "response_format": given}).params["response_format"] == FLAT


def test_what_was_normalised_stays_as_it_is() -> None:
    strict = formats.normalise({"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": True}})
    assert strict == FLAT | {"strict": True}
    assert formats.normalise(strict) == strict


def test_any_text_is_no_format_and_any_object_is_one() -> None:
    assert formats.normalise({"type": "text"}) is None
    assert formats.normalise({"type": "json_object"}) == {"type": "json_object"}


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": "http://json-schema.org/draft-07/schema#", **SCHEMA},
        {"$ref": "#/$defs/a", "$defs": {"a": SCHEMA}},
        {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}},
        {"properties": {"$id": {"type": "string"}, "pattern": {"type": "string"}, "$ref": {"const": 1}}},
        {"type": "string", "pattern": "^(a+)+$"},
        {"const": {"$ref": "https://example.com/x"}},
    ],
)
def test_ordinary_schemas_are_taken(schema: dict[str, Any]) -> None:
    assert formats.normalise(of(schema)) == FLAT | {"schema": schema}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "type must be"),
        ({"type": "grammar"}, "type must be"),
        ({"type": "text", "schema": {}}, "nothing beside"),
        ({"type": "json_schema"}, "schema must be an object"),
        ({"type": "json_schema", "json_schema": []}, "must be an object"),
        ({"type": "json_schema", "json_schema": {"schema": {}}, "schema": {}}, "must be an object"),
        (of({}) | {"grammar": 1}, "nothing else"),
        (of({}) | {"name": "a b"}, "name must be"),
        (of({}) | {"strict": "yes"}, "strict must be"),
        (of({"type": "objet"}), "type is wrong"),
        (of({"properties": {"a": {"minLength": -1}}}), "properties/a/minLength is wrong"),
        (of({"$ref": "https://example.com/schema"}), r"\$ref must be"),
        (of({"$ref": "file:///etc/passwd"}), r"\$ref must be"),
        (of({"$ref": "#/const"}), r"\$ref must be"),
        (of({"$ref": "#/$defs/none"}), "leads nowhere"),
        (of({"$ref": "#/$defs/a", "$defs": "abc"}), "leads nowhere"),
        (of({"$ref": "#/$defs/a", "$defs": ["a"]}), "leads nowhere"),
        (of({"$ref": "#/definitions/a", "definitions": 5}), "leads nowhere"),
        (of({"items": {"$id": "https://example.com"}}), r"without \$id"),
        (of({"$dynamicRef": "#a"}), r"without \$dynamicRef"),
        (of({"patternProperties": {"(a+)+$": {}}}), "without patternProperties"),
        (of({"$schema": "https://example.com/mine"}), "drafts"),
        (of({"pattern": "(?=a)b"}), "RE2"),
        (of({"pattern": "a{900}{900}"}), "RE2"),
        (of({"pattern": "a" * 1001}), "1000 characters"),
        (of({"pattern": ["a"]}), "RE2"),
        (of({"properties": {f"p{n}": {"pattern": rf"\pL{{0,99}}q{n}"} for n in range(9)}}), "instructions"),
        (of({"type": ["string", 0]}), "nothing but names"),
        (of({"items": {"required": ["a", []]}}), "nothing but names"),
        (of({"contentSchema": {"dependentRequired": {"a": [1]}}}), "nothing but names"),
        (of({"enum": ["x" * 40_000]}), "bytes"),
        (of({"enum": list(range(5000))}), "values"),
        (of({"anyOf": [{"type": "null"}] * 501}), "500 schemas"),
        (of(chain(40)), "written out"),
        (
            of({"$ref": "#/$defs/d0", "$defs": chain(9, 9)["$defs"] | {"d9": chain(9, 9)["$defs"]["d0"]}}),
            "out",
        ),
    ],
)
def test_what_cannot_be_kept_to_is_refused_at_submit(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=f"response_format: .*{reason}"):
        parse_request({"prompt": "x", "response_format": given})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": [str(n) if n % 2 else n for n in range(3900)]},
        {"not": {"dependentRequired": {"a": [[n] for n in range(1900)]}}},
        {"contentSchema": {"required": [n % 2 and str(n) for n in range(3900)]}},
        {"properties": {f"p{n}": {"pattern": f"(.{{0,999}}){{0,1}}q{n}"} for n in range(450)}},
        {"properties": {f"p{n}": {"pattern": rf"\pL{{0,300}}q{n}"} for n in range(450)}},
    ],
)
def test_schemas_that_take_long_to_check_are_refused_soon(schema: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="schema"):
        formats.normalise(of(schema))
    assert time.process_time() - began < 1.5


def test_one_pattern_may_stand_in_many_places() -> None:
    name = {"type": "string", "pattern": "^(.{0,999})$"}
    schema = {"properties": {f"p{n}": name for n in range(100)}}
    assert formats.normalise(of(schema)) == FLAT | {"schema": schema}


def test_nesting_is_bounded() -> None:
    schema: dict[str, Any] = {}
    for _ in range(formats.MAX_DEPTH):
        schema = {"not": schema}
    with pytest.raises(InvalidRequest, match="nested"):
        parse_request({"prompt": "x", "response_format": of(schema)})


@pytest.mark.parametrize("given", [FLAT, of(SCHEMA), {"type": "text"}, {"type": "json_object"}])
def test_the_description_has_every_shape(given: dict[str, Any]) -> None:
    jsonschema.validate(given, {"oneOf": formats.DESCRIPTION})
