"""A value that fits a JSON Schema, where one is easy to find: what the mock engine writes then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: Levels down to which a schema is followed; one that refers to itself goes on for ever.
MAX_DEPTH = 24


class Unknown(Exception):
    """No value is easy to find."""


def sample(schema: Any, words: Iterator[str], whole: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """A value that fits `schema` as far as its commonest keywords go.

    Args:
        schema: As `textgen.formats` lets it through.
        words: What texts are made of.
        whole: The schema that references lead into.
        depth: Levels above this one.

    Raises:
        Unknown: There is none, or none that is easy to find.
    """
    if schema is False or depth > MAX_DEPTH:
        raise Unknown
    if not isinstance(schema, dict) or not schema:
        return next(words)
    whole = schema if whole is None else whole

    def inner(one: Any) -> Any:
        return sample(one, words, whole, depth + 1)

    if "$ref" in schema:
        return inner(_referred(schema["$ref"], whole))
    if "const" in schema:
        return schema["const"]
    for name in ("enum", "examples"):
        if schema.get(name):
            return schema[name][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            return inner(schema[name][0])
    kind = _kind(schema)
    if kind == "object":
        known = schema.get("properties", {})
        required: list[str] = schema.get("required", list(known))
        return {name: inner(known.get(name, {})) for name in required}
    if kind == "array":
        first = schema.get("prefixItems", [])
        count = min(max(schema.get("minItems", 1), len(first)), schema.get("maxItems", 100), 100)
        return [inner(first[at] if at < len(first) else schema.get("items", {})) for at in range(count)]
    return _simple(kind, schema, words)


def _kind(schema: dict[str, Any]) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((one for one in kind if one != "null"), "null")
    if kind is None:
        return "object" if "properties" in schema else "array" if "items" in schema else "string"
    return kind


def _simple(kind: Any, schema: dict[str, Any], words: Iterator[str]) -> Any:
    if kind == "string":
        text = next(words)
        while len(text) < min(schema.get("minLength", 0), 10_000):
            text += f" {next(words)}"
        return text[: schema.get("maxLength")]
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        return min(least, schema["maximum"]) if "maximum" in schema else least
    return {"boolean": True, "null": None}[kind]


def _referred(reference: str, whole: dict[str, Any]) -> Any:
    found: Any = whole
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found[part]
    return found
