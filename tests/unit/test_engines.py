"""The contract that every engine keeps, on the real ones: no model is faked, and each SDK is its own.

The engines of providers speak to llama.cpp's own server. What one of them cannot do it refuses, and that
is part of the contract too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import httpx2
import pytest

from tests.unit import generation
from tests.unit.generation import answer, answers, begun, model_file
from tests.unit.llama_server import LlamaServer
from textgen import structured
from textgen.engines import Chunk, Engine, EngineRequest, Finish, engine_class
from textgen.engines.openai import ServerEngine
from textgen.errors import EngineUnusable
from textgen.servers import Server
from textgen.settings import Settings

#: Seconds in which an engine that has nothing else to do is done with a short request. Eight texts
#: that were not stopped would take the local engine five times as long.
PROMPT_S = 10.0
SCHEMA = {"type": "object", "properties": {"sea": {"type": "string", "maxLength": 8}}, "required": ["sea"]}
FORM: dict[str, Any] = {"type": "json_schema", "name": "seas", "schema": SCHEMA}


@dataclass(frozen=True)
class Subject:
    """An engine, and what its documentation says that it does not do."""

    name: str
    #: The part of a request that it refuses → a word of its refusal.
    refuses: dict[str, str] = field(default_factory=dict)
    #: Texts that it writes at once: as many as the server at hand has slots.
    slots: int = 8
    #: Whether its provider at hand keeps to a form; the worker checks in any case.
    keeps_form: bool = True
    is_provider: bool = False


SUBJECTS = [
    Subject("mock"),
    Subject("local"),
    *(
        Subject(name, is_provider=True, slots=4, **more)
        for name, more in {
            "openai by chat": {},
            "openai by responses": {
                "refuses": dict.fromkeys(("seed", "stop"), "neither stop nor seed"),
                "keeps_form": False,
            },
            "anthropic": {"refuses": {"seed": "no seed"}, "keeps_form": False},
            "a named server": {},
        }.items()
    ),
]


@pytest.fixture(scope="module")
def llama() -> Iterator[LlamaServer]:
    with LlamaServer() as server:
        server.wait_ready(120)
        yield server


@pytest.fixture(scope="module", params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.param
    return found


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, subject: Subject) -> Iterator[Engine]:
    if not subject.is_provider:
        settings = Settings(local_model=str(model_file()), mock_delay_s=0.001, concurrency=8)
        made = engine_class(subject.name)(settings)
    else:
        made = at_provider(subject.name, request.getfixturevalue("llama").url)
    assert made.missing(made.settings) is None
    with pytest.MonkeyPatch.context() as patched:
        # llama.cpp's server closes a connection after a hundred requests, without a word before
        fresh = httpx2.Limits(max_keepalive_connections=0)
        patched.setattr("textgen.engines.provider.limits", lambda: fresh)
        made.setup()
    yield made
    if subject.is_provider:
        made._client.close()


def at_provider(name: str, url: str) -> Engine:
    if name == "a named server":
        return ServerEngine.named("lab", Server(base_url=f"{url}/v1", model="tiny"))(Settings())
    settings = Settings(
        openai_base_url=f"{url}/v1",
        openai_model="tiny",
        openai_api="responses" if "responses" in name else "chat",
        anthropic_base_url=url,
        anthropic_model="tiny",
    )
    return engine_class(name.split()[0])(settings)


#: A request without a seed, which not all take.
request = partial(generation.request, seed=None)


def refused(subject: Subject, engine: Engine, asked: EngineRequest, part: str) -> bool:
    """Whether the engine does not do `part`; makes sure then that it says so."""
    if part in subject.refuses:
        with pytest.raises(EngineUnusable, match=subject.refuses[part]):
            answer(engine, asked)
    return part in subject.refuses


def timed(engine: Engine) -> float:
    """Seconds that a short request takes."""
    began = time.monotonic()
    assert answer(engine, request()).text
    return time.monotonic() - began


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
    assert found.finish.model


def test_a_text_that_ends_by_itself_says_so(engine: Engine) -> None:
    found = answer(engine, request("Name one colour.", temperature=0.0, max_tokens=200))
    assert found.finish.reason == "stop"


def test_chunks_say_how_many_tokens_they_stand_for(subject: Subject, engine: Engine) -> None:
    found = answer(engine, request("Tell a long story.", max_tokens=20))
    told = {chunk.prompt_tokens for chunk in found.chunks}
    if subject.is_provider:
        # a piece may be more than one token, and those of the prompt may be told at the end only
        assert 0 < sum(chunk.tokens for chunk in found.chunks) <= 20
        assert told <= {None, found.finish.usage.prompt_tokens}
    else:
        assert sum(chunk.tokens for chunk in found.chunks) == 20
        assert told == {found.finish.usage.prompt_tokens}


def test_a_longer_prompt_has_more_tokens(engine: Engine) -> None:
    short, long = answer(engine, request("Two words")), answer(engine, request("Now there are five words"))
    assert 0 < short.finish.usage.prompt_tokens < long.finish.usage.prompt_tokens


def test_no_more_tokens_are_cached_or_thought_than_there_are(engine: Engine) -> None:
    for usage in (answer(engine, request()).finish.usage for _ in range(2)):
        assert 0 <= usage.cached_tokens <= usage.prompt_tokens
        assert 0 <= usage.reasoning_tokens <= usage.completion_tokens


def test_earlier_turns_belong_to_the_prompt(engine: Engine) -> None:
    last = request("And what is it called?")
    earlier = (
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "Name a river in Egypt."},
        {"role": "assistant", "content": "The longest one there."},
    )
    alone, after = answer(engine, last), answer(engine, replace(last, messages=earlier + last.messages))
    assert after.finish.usage.prompt_tokens > alone.finish.usage.prompt_tokens + 10
    assert after.text != alone.text


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_same_seed_gives_the_same_text(subject: Subject, engine: Engine, seed: int) -> None:
    asked = request(seed=seed, temperature=1.0)
    if not refused(subject, engine, asked, "seed"):
        assert answer(engine, asked).text == answer(engine, asked).text or subject.is_provider


def test_temperature_zero_gives_the_same_text_without_a_seed(subject: Subject, engine: Engine) -> None:
    asked = request(temperature=0.0, max_tokens=24)
    texts = {found.text for found in answers(engine, [asked] * 4)}
    # providers promise no more than that it is nearly so
    assert "" not in texts
    assert len(texts) == 1 or subject.is_provider


def test_another_seed_gives_another_text(subject: Subject, engine: Engine) -> None:
    asked = request(seed=1, temperature=1.0, max_tokens=30)
    if not refused(subject, engine, asked, "seed"):
        assert answer(engine, asked).text != answer(engine, replace(asked, seed=2)).text


def test_another_prompt_gives_another_text(engine: Engine) -> None:
    assert answer(engine, request("Name a colour.")).text != answer(engine, request("Count to ten.")).text


def test_a_stop_sequence_ends_the_text_before_itself(subject: Subject, engine: Engine) -> None:
    asked = request("Tell a long story.", temperature=0.0, max_tokens=24)
    if refused(subject, engine, replace(asked, stop=("never said",)), "stop"):
        return
    whole = answer(engine, asked).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 8]
    found = answer(engine, replace(asked, stop=("never said", stop)))
    assert found.finish.reason == "stop"
    assert stop not in found.text
    assert found.text == whole[: whole.index(stop)] or subject.is_provider


def test_a_text_has_the_form_that_is_asked_for(subject: Subject, engine: Engine) -> None:
    found = answer(engine, request("Name a sea.", temperature=0.0, max_tokens=60, response_format=FORM))
    if subject.keeps_form:
        assert structured.wrong(FORM, found.text) is None
        assert json.loads(found.text)["sea"] is not None
    else:
        assert found.text


def test_as_many_requests_as_it_has_slots_run_at_once(subject: Subject, engine: Engine) -> None:
    asked = [request(f"Tell story number {n}.", max_tokens=16) for n in range(subject.slots)]
    found = answers(engine, asked)
    assert all(0 < one.finish.usage.completion_tokens <= 16 for one in found)
    assert len({one.text for one in found}) == subject.slots


def test_closing_the_iterators_midway_frees_the_engine(subject: Subject, engine: Engine) -> None:
    long = request("Tell a long story.", max_tokens=1500)
    alone_s = timed(engine)
    for _ in range(2):
        for pieces in [begun(engine, long) for _ in range(subject.slots)]:
            pieces.close()
    assert timed(engine) < max(PROMPT_S, 5 * alone_s)


def test_an_iterator_that_nobody_reads_keeps_nobody_waiting(engine: Engine) -> None:
    with closing(begun(engine, request("Tell a long story.", max_tokens=200))):
        assert answer(engine, request()).text


def test_an_account_is_the_same_for_the_same_settings(engine: Engine) -> None:
    made = type(engine)
    assert made.account(engine.settings) == made.account(engine.settings.model_copy())
