"""What a provider says was used: believed only where every number is one of tokens.

It is paid for by it; where it is unknown, the pieces that were written count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from textgen.lifecycle import Usage

#: The most tokens that are believed.
MAX_TOKENS = 1_000_000_000

P = ParamSpec("P")


def count(told: Any) -> int:
    """`told` as a number of tokens; raises ValueError where it is none."""
    if type(told) is not int or not 0 <= told <= MAX_TOKENS:
        raise ValueError("no number of tokens")
    return told


def believed(read: Callable[P, Usage]) -> Callable[P, Usage]:
    """Have `read` give an unknown usage for what it cannot read."""

    @wraps(read)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Usage:
        try:
            return read(*args, **kwargs)
        except (AttributeError, KeyError, TypeError, ValueError):
            return Usage()

    return checked


@believed
def of_openai(told: dict[str, Any], asked: str, written: str) -> Usage:
    """The usage that both of OpenAI's ways tell, each in words of its own for what was asked and written."""
    return Usage(
        count(told[f"{asked}_tokens"]),
        count(told[f"{written}_tokens"]),
        cached_tokens=count((told.get(f"{asked}_tokens_details") or {}).get("cached_tokens") or 0),
        reasoning_tokens=count((told.get(f"{written}_tokens_details") or {}).get("reasoning_tokens") or 0),
    )
