"""Events out of bytes, however these are cut."""

from __future__ import annotations

from itertools import chain, repeat

import httpx2
import pytest

from textgen.engines import events

TOLD = (
    b': hello\n\nevent: a\ndata: {"n": 1}\n\nid: 7\r\ndata: {"n":\r\ndata: 2}\r\n\r\n'
    + 'data:{"n": "\u00e9"}\n\ndata:\n\n'.encode()
    + b'data: [DONE]\n\ndata: {"n": 4}\n\n'
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_events_are_the_same_in_pieces_of_any_size(size: int) -> None:
    pieces = [TOLD[start : start + size] for start in range(0, len(TOLD), size)]
    assert [event["n"] for event in events.read(pieces, 60) if event] == [1, 2, "\u00e9"]


def test_what_ends_no_event_is_a_chance_to_stop() -> None:
    assert list(events.read([b": ping\n\n", b"data: {}"], 60)) == [{}, {}]


def test_no_event_is_held_that_has_no_end() -> None:
    with pytest.raises(ValueError, match="too long"):
        list(events.read(repeat(b"data: 1" * 1000), 60))
    told = b"data: {}\n\n" * 1000
    assert sum(1 for _ in events.read(repeat(told, 450), 60)) == 450_000


def test_comments_do_not_count_as_an_answer() -> None:
    with pytest.raises(httpx2.ReadTimeout):
        list(events.read(chain([b"data: {}\n\n"], repeat(b": ping\n\n")), 0.05))
