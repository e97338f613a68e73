"""The mock engine's delays and failures, each as a request asks for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from typing import Any

import pytest

from tests.unit.generation import Answer, answer, begun, mock_request, pieces_of, request
from textgen.engines import Chunk, EngineRequest
from textgen.engines.mock import TOKENS, MockEngine
from textgen.errors import PermanentEngineError, TransientEngineError
from textgen.settings import Settings

#: A program that reads a text from the mock engine and prints each piece.
READER = """
import sys
from tests.unit.generation import mock_request
from textgen.engines.mock import MockEngine
from textgen.settings import Settings
asked = mock_request(attempt=int(sys.argv[1]), failure="dies_midway", after=3)
for piece in MockEngine(Settings()).generate(asked):
    print(type(piece).__name__, flush=True)
"""


@pytest.fixture
def engine() -> MockEngine:
    return MockEngine(Settings())


def until_it_fails(engine: MockEngine, asked: EngineRequest) -> tuple[int, Exception]:
    """How many chunks came before the error, and the error."""
    chunks = 0
    try:
        for piece in engine.generate(asked):
            chunks += isinstance(piece, Chunk)
    except (TransientEngineError, PermanentEngineError, RuntimeError) as exc:
        return chunks, exc
    raise AssertionError("it did not fail")


def test_each_chunk_is_one_word_with_the_space_before_it(engine: MockEngine) -> None:
    chunks = answer(engine, mock_request()).chunks
    assert [chunk.text.strip() for chunk in chunks] == "".join(chunk.text for chunk in chunks).split()
    assert {chunk.tokens for chunk in chunks} == {1}


@pytest.mark.parametrize(
    ("asked_for", "reason"), [(None, "stop"), (0, "stop"), (100, "stop"), (101, "length")]
)
def test_tokens_sets_the_length_within_max_tokens(
    engine: MockEngine, asked_for: int | None, reason: str
) -> None:
    found = answer(engine, mock_request(tokens=asked_for))
    wanted = TOKENS if asked_for is None else min(asked_for, 100)
    assert (len(found.chunks), found.finish.reason) == (wanted, reason)
    assert found.finish.usage.completion_tokens == wanted


def test_a_stop_sequence_across_several_tokens_leaves_nothing_of_itself(engine: MockEngine) -> None:
    words = answer(engine, request(max_tokens=24)).text.split()
    found = answer(engine, request(max_tokens=24, stop=(" ".join(words[4:8]),)))
    assert found.text == " ".join(words[:4]) + " "
    assert (found.finish.reason, found.finish.usage.completion_tokens) == ("stop", 8)


def test_text_that_only_looked_like_a_stop_sequence_is_let_through(engine: MockEngine) -> None:
    whole = answer(engine, request(max_tokens=24))
    words = whole.text.split()
    found = answer(
        engine, request(max_tokens=24, stop=(f"{words[4]} {words[5]} never", f"{words[-1]} never"))
    )
    assert found.text == whole.text
    assert sum(chunk.tokens for chunk in found.chunks) == 24


def test_the_delay_is_per_token(engine: MockEngine) -> None:
    began = time.monotonic()
    answer(engine, mock_request(tokens=5, delay_s=0.02))
    assert time.monotonic() - began >= 5 * 0.02


def test_the_delay_of_the_request_replaces_that_of_the_settings() -> None:
    slow = MockEngine(Settings(mock_delay_s=3600))
    assert len(answer(slow, mock_request(tokens=5, delay_s=0)).chunks) == 5


@pytest.mark.parametrize(
    ("failure", "error"),
    [("transient", TransientEngineError), ("permanent", PermanentEngineError), ("raises", RuntimeError)],
)
def test_it_fails_after_the_tokens_asked_for(
    engine: MockEngine, failure: str, error: type[Exception]
) -> None:
    chunks, raised = until_it_fails(engine, mock_request(failure=failure, after=3, attempt=9))
    assert (chunks, type(raised)) == (3, error)


def test_a_failure_after_more_tokens_than_there_are_comes_at_the_end(engine: MockEngine) -> None:
    assert until_it_fails(engine, mock_request(failure="permanent", after=50, tokens=4))[0] == 4


def test_a_failure_a_number_of_times_lets_the_next_attempt_through(engine: MockEngine) -> None:
    for attempt in (1, 2):
        until_it_fails(engine, mock_request(failure="transient", times=2, attempt=attempt))
    assert answer(engine, mock_request(failure="transient", times=2, attempt=3)).text


def test_a_transient_failure_can_say_when_to_come_back(engine: MockEngine) -> None:
    _, raised = until_it_fails(engine, mock_request(failure="transient", retry_after_s=1.5))
    assert isinstance(raised, TransientEngineError)
    assert raised.retry_after_s == 1.5


def test_the_settings_can_make_every_request_fail() -> None:
    failing = MockEngine(Settings(mock_failure="transient"))
    failing.setup()
    assert until_it_fails(failing, request())[0] == 0
    assert answer(failing, mock_request(failure=None)).text


def test_a_wrong_setting_is_named_at_set_up() -> None:
    with pytest.raises(PermanentEngineError, match=r"TEXTGEN_MOCK_FAILURE.*streams_forever"):
        MockEngine(Settings(mock_failure="sometimes")).setup()


def test_hangs_yields_nothing_more(engine: MockEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = begun(engine, mock_request(failure="hangs", after=1))
    hanging, done = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        hanging.set()
        done.wait(60)

    monkeypatch.setattr("textgen.engines.mock.time.sleep", sleep)
    monkeypatch.setattr("textgen.engines.mock.HANG_S", 0.1)
    came: list[Any] = []
    reader = threading.Thread(target=lambda: came.append(_error_of(pieces)))
    reader.start()
    assert hanging.wait(10)
    assert reader.is_alive()
    assert came == []
    done.set()
    reader.join(10)
    assert isinstance(came[0], TransientEngineError)


def _error_of(pieces: Any) -> Exception | None:
    try:
        list(pieces)
    except TransientEngineError as exc:
        return exc
    return None


def test_streams_forever_goes_on_past_max_tokens(engine: MockEngine) -> None:
    pieces = pieces_of(engine, mock_request(failure="streams_forever", tokens=5))
    found = Answer(list(islice(pieces, 1000)))
    pieces.close()
    assert len(found.chunks) == 1000


@pytest.mark.parametrize(("attempt", "status", "last"), [(1, -signal.SIGKILL, "Chunk"), (2, 0, "Finish")])
def test_dies_midway_kills_the_process_of_the_first_attempt(attempt: int, status: int, last: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READER, str(attempt)], capture_output=True, text=True, check=False
    )
    lines = done.stdout.split()
    assert (done.returncode, lines[-1]) == (status, last)
    assert len(lines) == (3 if attempt == 1 else TOKENS + 1)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"failure": "sometimes"}, "failure"),
        ({"delay_s": "1"}, "delay_s"),
        ({"delay_s": True}, "delay_s"),
        ({"tokens": -1}, "tokens"),
        ({"unheard_of": 1}, "unheard_of"),
        (["failure"], "must be an object"),
        (None, "must be an object"),
    ],
)
def test_a_wrong_plan_is_a_permanent_error_that_names_what_is_wrong(
    engine: MockEngine, given: object, named: str
) -> None:
    with pytest.raises(PermanentEngineError, match=f"metadata.mock.*{named}"):
        answer(engine, request(metadata={"mock": given}))
