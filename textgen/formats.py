"""What a request may ask a text to be, `response_format`: brought into one shape, and bounded. Pure.

Schemas come from strangers: they are bounded in size, depth and vocabulary, and nothing is ever fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from textgen.structured import REFUSED, compiled

#: Bytes of a schema as JSON, and levels of nesting in it.
MAX_SCHEMA_BYTES, MAX_DEPTH = 32_768, 64
#: Schemas in a schema, and values of any kind: what it takes to look through it.
MAX_SCHEMAS, MAX_VALUES = 500, 4000
#: Schemas in a schema once each reference is written out, up to where it refers to itself: llama.cpp
#: writes them out, and where each is used twice by the one before that takes longer than there is time.
MAX_WRITTEN_OUT = 2000
#: Characters of a pattern, and of a description.
MAX_TEXT_CHARS = 1000
#: Instructions of all patterns of a schema, as RE2 compiles them: a second at the worst. What is repeated
#: stands there as often as it may come.
MAX_INSTRUCTIONS = 250_000
#: What a schema is called where nobody gave it a name; providers want one.
NAME = "answer"
#: What `$schema` may name. All are read as the last of them: what differs between them is refused.
DIALECT = re.compile(r"https?://json-schema\.org/(draft-0[67]|draft/2019-09|draft/2020-12)/schema#?")
#: Where a reference may lead: the whole, or a definition.
_REFERENCE = re.compile(r"#(?:/(\$defs|definitions)/([A-Za-z0-9_.-]{1,200}))?")
_NAME = r"^[A-Za-z0-9_-]{1,64}$"
#: The keywords whose values are schemas, or objects or arrays of them.
_SCHEMA = frozenset(
    {
        *("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"),
        "contentSchema",
    }
)
_DEFINITIONS = ("$defs", "definitions")
_OF_NAMES = frozenset({"properties", "dependentSchemas", *_DEFINITIONS})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})

_TYPE: dict[str, Any] = {
    "enum": ["object", "array", "string", "number", "integer", "boolean", "null"],
}
_MEMBERS: dict[str, Any] = {
    "name": {"type": "string", "pattern": _NAME, "description": "What providers call it."},
    "description": {"anyOf": [{"type": "string", "maxLength": MAX_TEXT_CHARS}, {"type": "null"}]},
    "strict": {
        "anyOf": [{"type": "boolean"}, {"type": "null"}],
        "description": "Passed on to OpenAI's engine.",
    },
    "schema": {
        "type": "object",
        "description": "A JSON Schema, read as draft 2020-12.",
        "properties": {
            "type": {"anyOf": [_TYPE, {"type": "array", "items": _TYPE, "minItems": 1, "uniqueItems": True}]},
            "properties": {
                "type": "object",
                "additionalProperties": {
                    "anyOf": [{"type": "object", "properties": {"type": _TYPE}}, {"type": "boolean"}]
                },
            },
            "required": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        },
    },
}
_TYPED = {"const": "json_schema"}
#: The shapes that a format can have, for the description of the API.
DESCRIPTION: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {"type": {"enum": ["text", "json_object"]}},
        "required": ["type"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {"type": _TYPED, **_MEMBERS},
        "required": ["type", "schema"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "type": _TYPED,
            "json_schema": {
                "type": "object",
                "properties": _MEMBERS,
                "required": ["schema"],
                "additionalProperties": False,
            },
        },
        "required": ["type", "json_schema"],
        "additionalProperties": False,
    },
]


def normalise(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Bring a response format into its one shape, and make sure that it can be kept to.

    Args:
        given: As OpenAI's Chat Completions have it, {"type": "json_schema", "json_schema": {…}}, as its
            Responses do, with `name`, `schema` and `strict` beside `type`; or only with a `type`.

    Returns:
        {"type": "json_schema", "name", "schema", "strict"?}, {"type": "json_object"}, or None: any text.

    Raises:
        ValueError: Says what is wrong, without any value.
    """
    kind, rest = given.get("type"), {name: given[name] for name in given if name != "type"}
    if kind in ("text", "json_object"):
        if rest:
            raise ValueError(f"has nothing beside its type where that is {kind}")
        return None if kind == "text" else {"type": kind}
    if kind != "json_schema":
        raise ValueError("type must be text, json_object or json_schema")
    if "json_schema" in rest:
        nested = rest["json_schema"]
        if not isinstance(nested, Mapping) or len(rest) > 1:
            raise ValueError("json_schema must be an object with all that belongs to it")
        rest = dict(nested)
    return {"type": "json_schema", **_described(rest)}


def _described(given: dict[str, Any]) -> dict[str, Any]:
    unknown = given.keys() - {"name", "schema", "strict", "description"}
    if unknown:
        raise ValueError("knows name, schema, strict and description, and nothing else")
    name, strict, text = given.get("name", NAME), given.get("strict"), given.get("description")
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise ValueError("name must be up to 64 letters, digits, `_` or `-`")
    if strict is not None and not isinstance(strict, bool):
        raise ValueError("strict must be true or false")
    if text is not None and (not isinstance(text, str) or len(text) > MAX_TEXT_CHARS):
        raise ValueError(f"description must be a text of up to {MAX_TEXT_CHARS} characters")
    if not isinstance(given.get("schema"), Mapping):
        raise ValueError("schema must be an object: a JSON Schema")
    known = {"name": name, "schema": given["schema"], "strict": strict, "description": text}
    _check_size(known["schema"])
    _check(json.dumps(known["schema"], sort_keys=True))
    return {name: value for name, value in known.items() if value is not None}


def _check_size(schema: Mapping[str, Any]) -> None:
    depth, values = _extent(schema)
    if depth > MAX_DEPTH:
        raise ValueError(f"schema is nested deeper than {MAX_DEPTH} levels")
    if values > MAX_VALUES:
        raise ValueError(f"schema has {values} values, over the limit of {MAX_VALUES}")
    try:
        size = len(json.dumps(schema, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError):
        raise ValueError("schema must be plain JSON") from None
    if size > MAX_SCHEMA_BYTES:
        raise ValueError(f"schema is {size} bytes as JSON, over the limit of {MAX_SCHEMA_BYTES}")


def _extent(value: Any) -> tuple[int, int]:
    """Levels of nesting, counted no further than matters, and values on them."""
    level, depth, values = [value], 0, 0
    while level and depth <= MAX_DEPTH:
        depth, values = depth + 1, values + len(level)
        held = [one for one in level if isinstance(one, (Mapping, list, tuple))]
        level = [item for one in held for item in (one.values() if isinstance(one, Mapping) else one)]
    return depth, values


@lru_cache(maxsize=256)
def _check(text: str) -> None:
    """Raise ValueError unless `text` is a schema that can be kept to."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    schema = json.loads(text)
    if _check_vocabulary(schema, schema) > MAX_SCHEMAS:
        raise ValueError(f"schema has more than {MAX_SCHEMAS} schemas in it")
    if _written_out(schema, schema, (), MAX_WRITTEN_OUT) < 0:
        raise ValueError(f"schema has more than {MAX_WRITTEN_OUT} schemas in it, references written out")
    _check_patterns(_patterns(schema))
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as exc:
        where = "/".join(str(part) for part in exc.absolute_path)
        raise ValueError(f"schema is no JSON Schema: {where[:200] or 'its top'} is wrong") from None


def _check_vocabulary(schema: Any, whole: dict[str, Any]) -> int:
    """Raise ValueError for what is not supported; returns how many schemas there are."""
    if not isinstance(schema, dict):
        return 1
    refused = sorted(REFUSED & schema.keys())
    if refused:
        raise ValueError(f"schema must do without {refused[0]}")
    if "$schema" in schema and not DIALECT.fullmatch(str(schema["$schema"])):
        raise ValueError("schema must be of JSON Schema's drafts 6 to 2020-12")
    if "$ref" in schema:
        _check_reference(schema["$ref"], whole)
    _check_names(schema)
    return 1 + sum(_check_vocabulary(inner, whole) for inner in _inner(schema))


def _written_out(schema: Any, whole: dict[str, Any], within: tuple[str, ...], left: int) -> int:
    """How many of `left` schemas are left once this one is written out; below 0: it takes more."""
    left -= 1
    if not isinstance(schema, dict) or left < 0:
        return left
    reference = schema.get("$ref")
    if reference is not None and reference not in within:
        found = _REFERENCE.fullmatch(reference)
        place, name = found.groups() if found else (None, None)
        target = whole[place][name] if place else whole
        left = _written_out(target, whole, (*within, reference), left)
    for name, value in schema.items():
        inner = () if name in _DEFINITIONS else _inner({name: value})
        for one in inner:
            left = _written_out(one, whole, within, left)
    return left


def _inner(schema: dict[str, Any]) -> Iterator[Any]:
    """The schemas right inside a schema."""
    for name, value in schema.items():
        if name in _SCHEMA:
            yield value
        elif name in _OF_NAMES and isinstance(value, dict):
            yield from value.values()
        elif name in _LISTS and isinstance(value, list):
            yield from value


def _check_reference(reference: Any, whole: dict[str, Any]) -> None:
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if not found:
        raise ValueError("schema: a $ref must be # or #/$defs/NAME")
    place, name = found.groups()
    held = whole.get(place)
    if name and not (isinstance(held, dict) and name in held):
        raise ValueError("schema: a $ref leads nowhere")


def _check_names(schema: dict[str, Any]) -> None:
    """Raise ValueError unless lists with nothing twice are of texts: jsonschema compares others in pairs."""
    dependent = schema.get("dependentRequired")
    named = [
        schema.get("type"),
        schema.get("required"),
        *(dependent.values() if isinstance(dependent, dict) else ()),
    ]
    for names in named:
        if isinstance(names, list) and not all(isinstance(name, str) for name in names):
            raise ValueError("schema: type, required and dependentRequired list nothing but names")


def _patterns(schema: Any) -> Iterator[Any]:
    """The patterns in a schema, at all depths."""
    if isinstance(schema, dict):
        if "pattern" in schema:
            yield schema["pattern"]
        for inner in _inner(schema):
            yield from _patterns(inner)


def _check_patterns(patterns: Iterator[Any]) -> None:
    sizes: dict[str, int] = {}
    for pattern in patterns:
        size = _size(pattern)
        sizes[pattern] = size
        if sum(sizes.values()) > MAX_INSTRUCTIONS:
            raise ValueError(
                f"schema has patterns of more than {MAX_INSTRUCTIONS} instructions, repetitions written out"
            )


def _size(pattern: Any) -> int:
    """How many instructions a pattern is, compiled."""
    import re2

    try:
        if len(pattern) > MAX_TEXT_CHARS:
            raise ValueError(f"schema: a pattern is longer than {MAX_TEXT_CHARS} characters")
        return int(compiled(pattern).programsize)
    except (TypeError, re2.error):
        raise ValueError(
            "schema: a pattern is none that RE2 knows (github.com/google/re2/wiki/Syntax)"
        ) from None
