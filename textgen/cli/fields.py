"""The options that describe a request, and the request they make. Validation is the request's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


class JsonObject(click.ParamType[dict[str, Any]]):
    """An option whose value is a JSON object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            self.fail('is not JSON; write it like {"key": "value"}', param, ctx)
        if not isinstance(parsed, dict):
            self.fail("must be a JSON object", param, ctx)
        return parsed


_OPTIONS = (
    click.option("--engine", help="Engine to use; the server's default if left out."),
    click.option("--model", help="Model of the engine."),
    click.option("--system", help="System message put before the prompt."),
    click.option("--max-tokens", type=int, help="Tokens to generate at the most."),
    click.option("--temperature", type=float, help="Randomness, 0 to 2; 0 is deterministic."),
    click.option("--top-p", type=float, help="Share of probability to sample from, above 0 up to 1."),
    click.option("--stop", multiple=True, help="Text at which generation ends; may be repeated."),
    click.option("--seed", type=int, help="Makes sampling repeatable."),
    click.option(
        "--response-format", type=JsonObject(), help="What the text must be, as JSON; see the API's field."
    ),
    click.option(
        "--cache/--no-cache",
        default=None,
        help="Whether the text of an equal request will do; by default with --temperature 0 or --seed.",
    ),
    click.option("--priority", type=int, help="0 to 9; 9 is the most urgent.  [default: 5]"),
    click.option("--lane", type=click.Choice(["interactive", "bulk"]), help="Which queue to wait in."),
    click.option("--metadata", type=JsonObject(), help="JSON object of your own, kept with the task."),
    click.option("--ttl-s", type=int, help="Seconds that the finished task can be read."),
    click.option("--deadline-s", type=int, help="Seconds in which the task must end."),
)

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Wait no longer than this (exit code 5); the task goes on.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output on stdout.")


def request_options(function: Function) -> Function:
    """Give a command an option for every field of a request but the prompt."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def request_fields(prompt: str, system: str | None = None, **options: Any) -> dict[str, Any]:
    """The fields of a request, from a prompt and the values of `request_options`."""
    fields = {name: value for name, value in options.items() if value is not None and value != ()}
    if "stop" in fields:
        fields["stop"] = list(fields["stop"])
    if system is None:
        return {"prompt": prompt, **fields}
    messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
    return {"messages": messages, **fields}


def read_stdin() -> str:
    """Read stdin to its end.

    Raises:
        click.UsageError: It is not UTF-8.
    """
    return decoded(sys.stdin.buffer.read(), "stdin")


def decoded(content: bytes, name: str) -> str:
    """Decode text that came from `name`.

    Raises:
        click.UsageError: It is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise click.UsageError(f"{name} is not UTF-8 text") from exc
