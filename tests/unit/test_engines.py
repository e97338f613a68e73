"""The contract that every engine keeps, on the real ones: no model is faked."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace

import pytest

from tests.unit.generation import answer, answers, begun, model_file, request
from textgen.engines import Chunk, Engine, Finish, engine_class
from textgen.settings import Settings

#: Seconds in which an engine that has nothing else to do is done with a short request. Eight texts
#: that were not stopped would take the local engine five times as long.
PROMPT_S = 10.0


@pytest.fixture(scope="module", params=["mock", "local"])
def engine(request: pytest.FixtureRequest) -> Engine:
    settings = Settings(local_model=str(model_file()), mock_delay_s=0.001, concurrency=8)
    made = engine_class(request.param)(settings)
    assert made.missing(settings) is None
    made.setup()
    return made


def test_chunks_come_first_and_exactly_one_finish_comes_last(engine: Engine) -> None:
    pieces = answer(engine, request()).pieces
    assert [type(piece) for piece in pieces] == [Chunk] * (len(pieces) - 1) + [Finish]


def test_the_text_is_not_empty_and_fit_for_json_and_redis(engine: Engine) -> None:
    text = answer(engine, request("Say hello in Japanese, and add a 🙂.", max_tokens=40)).text
    assert text
    assert text.encode().decode() == text


def test_max_tokens_ends_the_text_with_reason_length(engine: Engine) -> None:
    found = answer(engine, request("Tell a long story.", max_tokens=9))
    assert (found.finish.reason, found.finish.usage.completion_tokens) == ("length", 9)


def test_chunks_say_how_many_tokens_they_stand_for(engine: Engine) -> None:
    found = answer(engine, request("Tell a long story.", max_tokens=20))
    assert sum(chunk.tokens for chunk in found.chunks) == 20
    assert {chunk.prompt_tokens for chunk in found.chunks} == {found.finish.usage.prompt_tokens}


def test_a_longer_prompt_has_more_tokens(engine: Engine) -> None:
    short, long = answer(engine, request("Two words")), answer(engine, request("Now there are five words"))
    assert 0 < short.finish.usage.prompt_tokens < long.finish.usage.prompt_tokens


def test_earlier_turns_belong_to_the_prompt(engine: Engine) -> None:
    last = request("And what is it called?")
    earlier = (
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "Name a river in Egypt."},
        {"role": "assistant", "content": "The longest one there."},
    )
    alone, after = answer(engine, last), answer(engine, replace(last, messages=earlier + last.messages))
    assert after.finish.usage.prompt_tokens > alone.finish.usage.prompt_tokens
    assert after.text != alone.text


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_same_seed_gives_the_same_text(engine: Engine, seed: int) -> None:
    asked = request(seed=seed, temperature=1.0)
    assert answer(engine, asked).text == answer(engine, asked).text


def test_temperature_zero_gives_the_same_text_without_a_seed(engine: Engine) -> None:
    asked = request(seed=None, temperature=0.0, max_tokens=24)
    texts = [found.text for found in answers(engine, [asked] * 4)]
    assert {answer(engine, asked).text, *texts} == {texts[0]}


def test_another_seed_gives_another_text(engine: Engine) -> None:
    asked = request(seed=1, temperature=1.0, max_tokens=30)
    assert answer(engine, asked).text != answer(engine, replace(asked, seed=2)).text


def test_another_prompt_gives_another_text(engine: Engine) -> None:
    assert answer(engine, request("Name a colour.")).text != answer(engine, request("Count to ten.")).text


def test_a_stop_sequence_ends_the_text_before_itself(engine: Engine) -> None:
    asked = request("Tell a long story.", max_tokens=24)
    whole = answer(engine, asked).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 8]
    found = answer(engine, replace(asked, stop=("never said", stop)))
    assert found.text == whole[: whole.index(stop)]
    assert found.finish.reason == "stop"


def test_eight_requests_run_at_once(engine: Engine) -> None:
    asked = [request(f"Tell story number {n}.", max_tokens=16) for n in range(8)]
    found = answers(engine, asked)
    assert all(0 < one.finish.usage.completion_tokens <= 16 for one in found)
    assert len({one.text for one in found}) == 8


def test_closing_the_iterators_midway_frees_the_engine(engine: Engine) -> None:
    for _ in range(2):
        for pieces in [begun(engine, request("Tell a long story.", max_tokens=1500)) for _ in range(8)]:
            pieces.close()
    closed = time.monotonic()
    assert answer(engine, request()).text
    assert time.monotonic() - closed < PROMPT_S


def test_an_iterator_that_nobody_reads_keeps_nobody_waiting(engine: Engine) -> None:
    with closing(begun(engine, request("Tell a long story.", max_tokens=200))):
        assert answer(engine, request()).text
