"""The Lua scripts: loaded from the files beside this module, run by their digest."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import redis

_METERING = ("clock", "metering")
#: Script → the texts in front of it, where it is no transition of a task.
NEEDS: dict[str, tuple[str, ...]] = {
    "lead": (),
    "settle": (),
    "admit": _METERING,
    "bill": _METERING,
    "let_in": _METERING,
}


@cache
def source(name: str) -> str:
    """The text of script `name`, behind those that it needs; mostly it is a transition of a task."""
    folder = files("textgen.store") / "lua"
    parts = [*NEEDS.get(name, ("clock", "prelude")), name]
    return "".join((folder / f"{part}.lua").read_text() for part in parts)


@cache
def digest(name: str) -> str:
    """The SHA-1 by which Redis knows script `name`."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def run(client: redis.Redis, name: str, keys: list[str], args: list[Any], *before: tuple[Any, ...]) -> Any:
    """Run a script, in one round trip together with the plain commands in `before`.

    Args:
        client: Where to run it.
        name: The script's file name without its ending.
        keys: Its KEYS.
        args: Its ARGV.
        before: Commands sent ahead of it; each must be harmless when repeated.

    Returns:
        What the script returned.
    """
    pipe = client.pipeline(transaction=False)
    for command in before:
        pipe.execute_command(*command)
    pipe.execute_command("EVALSHA", digest(name), len(keys), *keys, *args)
    answers = pipe.execute(raise_on_error=False)
    if isinstance(answers[-1], redis.exceptions.NoScriptError):
        answers[-1] = client.eval(source(name), len(keys), *keys, *args)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers[-1]
