"""The bridge to a runtime that blocks and calls back, with runtimes that misbehave in one way each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from textgen.engines import call as call_module
from textgen.engines.call import Call
from textgen.engines.native import Mailbox
from textgen.errors import EngineUnusable, TransientEngineError

Take = Callable[[dict[str, Any]], bool]


class CountingRuntime:
    """Counts until it is told to stop, and notes how far it got."""

    def __init__(self) -> None:
        self.counted = 0
        self.began = threading.Event()

    def handle_chat_completions(self, body: dict[str, Any], take: Take) -> None:
        while not take({"count": self.counted}):
            self.counted += 1
            self.began.set()


class RaisingRuntime:
    """Says one thing, then raises."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def handle_chat_completions(self, body: dict[str, Any], take: Take) -> None:
        take({"count": 0})
        raise self.failure


class SilentRuntime:
    """Says nothing until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def handle_chat_completions(self, body: dict[str, Any], take: Take) -> None:
        self.let_go.wait(60)


@pytest.fixture
def slots() -> Mailbox[bool]:
    """The slots of an engine whose one slot is taken."""
    return Mailbox()


@pytest.fixture
def silent() -> Iterator[SilentRuntime]:
    runtime = SilentRuntime()
    yield runtime
    runtime.let_go.set()


def begun(runtime: object, slots: Mailbox[bool], closed: bool = False) -> Call:
    return Call(runtime, {}, slots, lambda: closed)


def test_a_cancelled_call_ends_and_gives_its_slot_back(slots: Mailbox[bool]) -> None:
    runtime = CountingRuntime()
    call = begun(runtime, slots)
    assert runtime.began.wait(10)
    assert slots.take(0) is None
    call.cancel()
    assert slots.take(10)


def test_a_closed_engine_ends_its_calls(slots: Mailbox[bool]) -> None:
    call = begun(CountingRuntime(), slots, closed=True)
    assert list(call.pieces()) == [{"count": 0}]
    assert slots.take(10)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (ValueError("prompt: my secret"), EngineUnusable),
        (RuntimeError("prompt: my secret"), TransientEngineError),
        (KeyError("a bug"), KeyError),
    ],
)
def test_what_a_runtime_raises_reaches_the_reader_after_what_it_said(
    slots: Mailbox[bool], failure: Exception, error: type[Exception]
) -> None:
    pieces = begun(RaisingRuntime(failure), slots).pieces()
    assert next(pieces) == {"count": 0}
    with pytest.raises(error) as raised:
        next(pieces)
    assert "secret" not in str(raised.value)
    assert slots.take(10)


def test_a_silent_runtime_gives_its_reader_the_chance_to_stop(
    slots: Mailbox[bool], silent: SilentRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_module, "PULSE_S", 0.01)
    assert next(begun(silent, slots).pieces()) == {}


def test_a_runtime_silent_for_too_long_is_given_up_but_keeps_its_slot(
    slots: Mailbox[bool], silent: SilentRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_module, "PULSE_S", 0.01)
    monkeypatch.setattr(call_module, "SILENCE_S", 0.05)
    with pytest.raises(TransientEngineError, match="said nothing"):
        list(begun(silent, slots).pieces())
    assert slots.take(0) is None
    silent.let_go.set()
    assert slots.take(10)


def test_without_a_thread_the_slot_is_given_back(
    slots: Mailbox[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(call_module, "start_thread", refuse)
    with pytest.raises(TransientEngineError, match="no thread"):
        begun(CountingRuntime(), slots)
    assert slots.take(0)
