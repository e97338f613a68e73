"""Adds to the event logs of many attempts in one round trip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textgen.store import keys, scripts
from textgen.store.answers import Verdict
from textgen.store.connection import translated
from textgen.store.tasks import Store


@dataclass(frozen=True, slots=True)
class Piece:
    """Text for one attempt; see `Store.append`. Empty: its lease is renewed."""

    task_id: str
    token: str
    #: Pieces that the attempt had before this one.
    number: int
    text: str
    #: Tokens that the text stands for; 0 where another attempt has used them.
    tokens: int = 0
    #: Tokens of the prompt, where they are known by now.
    prompt_tokens: int | None = None


def append_each(store: Store, pieces: Iterable[Piece]) -> list[Verdict]:
    """Add text to attempts, and renew their leases.

    Raises:
        StoreUnavailable: Redis did not answer. Repeat it with the same pieces: it may have been done.
    """
    lease_ms = int(store.lease_s * 1000)
    commands = [
        scripts.command(
            "append",
            [make(piece.task_id) for make in keys.OF_TASK],
            [piece.token, lease_ms, piece.number, piece.text, piece.tokens, _or_empty(piece.prompt_tokens)],
        )
        for piece in pieces
    ]
    with translated():
        return [Verdict(answer[0]) for answer in scripts.send(store.client, commands)]


def _or_empty(number: int | None) -> int | str:
    return "" if number is None else number
