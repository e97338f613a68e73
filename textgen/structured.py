"""Structured output: whether a text is what `response_format` asks for. Pure.

Schemas come from strangers and texts from models, so the check is bounded: it takes so many steps and no
more, and patterns run in linear time (RE2).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import Any

from textgen.errors import InvalidOutput, UnfinishedOutput

#: Rules that are applied to a text at the most, beside one for each of its characters: a second or two.
#: Schemas that refer to themselves can ask for more than there is time.
MAX_STEPS = 50_000
#: Keywords of schemas that are refused. What is not refused cannot lead out of the schema, nor to work
#: that is not counted.
REFUSED = frozenset(
    {
        *("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"),
        *("$vocabulary", "patternProperties", "unevaluatedItems", "unevaluatedProperties"),
        *("dependencies", "additionalItems"),
    }
)


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """The pattern, made to search with.

    Raises:
        re2.error: It is none that RE2 knows.
    """
    import re2

    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


class _TooMuch(Exception):
    """A check took all of its steps."""


#: What is left of the steps of the check under way.
_left: ContextVar[list[int]] = ContextVar("left")


def check(wanted: Mapping[str, Any], text: str, reason: str) -> None:
    """Make sure that a finished text is what `wanted` asks for.

    Args:
        wanted: As for `wrong`.
        text: What a model wrote.
        reason: Why it ended, as `Finish` tells it.

    Raises:
        InvalidOutput: It is not; another attempt may do better.
        UnfinishedOutput: It is not, and will not be.
    """
    why = wrong(wanted, text)
    if why is None:
        return
    if reason == "length":
        raise UnfinishedOutput(f"{why}: it ended at max_tokens; raise that")
    if reason == "content_filter":
        raise UnfinishedOutput(f"{why}: the model or its provider refused")
    raise InvalidOutput(why)


def wrong(wanted: Mapping[str, Any], text: str) -> str | None:
    """What keeps `text` from being what `wanted` asks for, without a word of it; None: it is that.

    Args:
        wanted: As `textgen.formats.normalise` returns it.
        text: What a model wrote.
    """
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return "the text is not JSON"
    if wanted["type"] == "json_object":
        return None if isinstance(value, dict) else "the text is not a JSON object"
    return _against(wanted["schema"], value, MAX_STEPS + len(text))


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _against(schema: Mapping[str, Any], value: Any, steps: int) -> str | None:
    token = _left.set([steps])
    try:
        error = next(_validator()(schema).iter_errors(value), None)
    except (_TooMuch, RecursionError):
        return "the text cannot be checked against the schema in the time there is"
    except UnicodeError:
        return "the text has half a character that stands for none"
    except ArithmeticError:
        return "the text has a number that cannot be checked"
    finally:
        _left.reset(token)
    return f"the text breaks the schema's rule `{error.validator}`" if error else None


@cache
def _validator() -> Callable[[Mapping[str, Any]], Any]:
    """Draft 2020-12 without what is refused, each rule counted."""
    from jsonschema import Draft202012Validator, validators
    from referencing import Registry

    rules = {name: rule for name, rule in Draft202012Validator.VALIDATORS.items() if name not in REFUSED}
    rules |= {"pattern": _matches, "uniqueItems": _unique}
    counted = validators.create(
        Draft202012Validator.META_SCHEMA,
        validators={name: _counted(rule) for name, rule in rules.items()},
        type_checker=Draft202012Validator.TYPE_CHECKER,
        id_of=Draft202012Validator.ID_OF,
    )
    # an empty registry: the default one would fetch what a reference names
    return lambda schema: counted(schema, registry=Registry())


def _counted(rule: Callable[..., Any]) -> Callable[..., Any]:
    def apply(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        left = _left.get()
        left[0] -= 1 + (len(value) if isinstance(value, (list, dict)) else 0)
        if left[0] < 0:
            raise _TooMuch
        yield from rule(validator, value, instance, schema) or ()

    return apply


def _matches(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if validator.is_type(instance, "string") and not compiled(pattern).search(instance):
        yield ValidationError("does not match")


def _unique(validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[Any]:
    """In one pass: jsonschema's own compares each item with each where they cannot be sorted."""
    from jsonschema import ValidationError

    if wanted and validator.is_type(instance, "array"):
        seen = {json.dumps(_plain(item), sort_keys=True) for item in instance}
        if len(seen) < len(instance):
            yield ValidationError("has an item twice")


def _plain(value: Any) -> Any:
    """The value with 1.0 written as 1, which JSON Schema takes for the same."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
