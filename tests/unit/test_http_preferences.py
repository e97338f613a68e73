"""What is read from the header `Prefer`."""

from __future__ import annotations

import pytest

from textgen.http.preferences import wait_s


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=30", 30),
        ('wait="5"', 5),
        ("WAIT = 7", 7),
        ("respond-async, wait=10", 10),
        ("wait=10; strict, handling=lenient", 10),
        ("wait=0", 0),
        ("wait=100000", 60),
        ("wait=1, wait=2", 1),
    ],
)
def test_a_wait_is_read_and_bounded(header: str, seconds: int) -> None:
    assert wait_s(header) == seconds


@pytest.mark.parametrize(
    "header",
    [None, "", "respond-async", "wait", "wait=", "wait=-1", "wait=1.5", "wait=x", "waits=3", "wait=²"],
)
def test_what_is_no_wait_is_ignored(header: str | None) -> None:
    assert wait_s(header) is None


def test_a_number_of_many_digits_is_ignored() -> None:
    assert wait_s(f"wait={'9' * 5000}") is None
