"""What a stream of plain text says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from textgen.http import streams
from textgen.lifecycle import Event, Record, Status


def chunk(text: str) -> Event:
    return Event("1-1", "chunk", 1, {"text": text})


RESET = Event("2-1", "reset", 1, {"reason": "log_lost"})
VOID = "\n[The text so far is void: log_lost. It begins anew.]\n"


@pytest.mark.parametrize(
    ("events", "shown"),
    [
        ([chunk("a"), RESET, chunk("b")], f"a{VOID}b"),
        ([RESET, Event("3-1", "state", 1, {"status": "PROCESSING"}), chunk("b")], "b"),
        ([RESET, chunk("a"), RESET, RESET, chunk("b")], f"a{VOID}{VOID}b"),
    ],
)
@pytest.mark.parametrize("is_one_page", [True, False])
def test_only_text_that_was_sent_is_called_void(events: list[Event], shown: str, is_one_page: bool) -> None:
    pages = [events] if is_one_page else [[event] for event in events]
    following: Any = SimpleNamespace(pages=pages, is_over=True)
    record = Record("id", prompt="hello", status=Status.COMPLETED)
    assert "".join(streams._text(following, lambda: record)) == shown
