"""The Lua scripts: loaded from the files beside this module, run by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

import redis

_METERING = ("clock", "metering")
_CACHE = ("clock", "cached")
#: Script → the texts in front of it, where it is no transition of a task.
NEEDS: dict[str, tuple[str, ...]] = {
    "lead": (),
    "settle": (),
    "index": (),
    "admit": _METERING,
    "bill": _METERING,
    "let_in": _METERING,
    "permit": ("clock", "providers"),
    "answered": ("clock", "providers"),
    "cache_put": _CACHE,
    "cache_clear": _CACHE,
    "cache_enter": _CACHE,
    "cache_attend": _CACHE,
    "cache_leave": _CACHE,
}
#: Digest → script that was ever to be sent.
_names: dict[str, str] = {}


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


def command(name: str, keys: list[str], args: list[Any]) -> tuple[Any, ...]:
    """The command that runs a script, for `send`; arguments as for `run`."""
    _names[digest(name)] = name
    return ("EVALSHA", digest(name), len(keys), *keys, *args)


def send(client: redis.Redis, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Send commands, plain ones or those of `command`, in one round trip; returns their answers.

    Scripts that Redis does not know yet follow at once; each command must be harmless when repeated.
    """
    commands = list(commands)
    answers = _send(client, commands)
    for i, sent in enumerate(commands):
        if isinstance(answers[i], redis.exceptions.NoScriptError):
            answers[i] = client.execute_command("EVAL", source(_names[sent[1]]), *sent[2:])
        elif isinstance(answers[i], Exception):
            raise answers.pop(i)  # what kept it here would keep the client with its connections, too
    return answers


def _send(client: redis.Redis, commands: list[tuple[Any, ...]]) -> list[Any]:
    """The answers to commands, errors of Redis among them."""
    if len(commands) == 1:  # as most are: a pipeline would take half as long again
        try:
            return [client.execute_command(*commands[0])]
        except redis.ResponseError as exc:
            return [exc]
    pipe = client.pipeline(transaction=False)
    for one in commands:
        pipe.execute_command(*one)
    return list(pipe.execute(raise_on_error=False))


def run(client: redis.Redis, name: str, keys: list[str], args: list[Any], *before: tuple[Any, ...]) -> Any:
    """Run a script, in one round trip together with the commands in `before`.

    Args:
        client: Where to run it.
        name: The script's file name without its ending.
        keys: Its KEYS.
        args: Its ARGV.
        before: Commands sent ahead of it, as for `send`.

    Returns:
        What the script returned.
    """
    return send(client, [*before, command(name, keys, args)])[-1]
