"""The engines of providers through their real SDKs: against a real server, and against a bad one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.unit.generation import answer, answers, pieces_of, request
from tests.unit.llama_server import LlamaServer
from tests.unit.scripted_provider import REFUSALS, ScriptedProvider
from textgen.engines import Chunk, Engine, engine_class
from textgen.errors import EngineError, PermanentEngineError, TransientEngineError
from textgen.settings import Settings

KEY = "sk-canary-7261"
#: Engine and way of speaking.
WAYS = ("openai by chat", "openai by responses", "anthropic")
CHAT = WAYS[0]


def engine_at(way: str, url: str, **more: object) -> Engine:
    settings = Settings(
        openai_base_url=f"{url}/v1",
        openai_api_key=KEY,
        openai_model="tiny",
        openai_api="responses" if "responses" in way else "chat",
        anthropic_base_url=url,
        anthropic_api_key=KEY,
        anthropic_model="tiny",
        **{"provider_timeout_s": 60.0} | more,
    )
    made = engine_class(way.split()[0])(settings)
    assert made.missing(settings) is None
    made.setup()
    return made


@pytest.fixture(scope="module")
def llama() -> Iterator[LlamaServer]:
    with LlamaServer() as server:
        server.wait_ready(120)
        yield server


@pytest.fixture(scope="module", params=WAYS)
def real(request: pytest.FixtureRequest, llama: LlamaServer) -> Engine:
    return engine_at(request.param, llama.url)


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as made:
        yield made


@pytest.fixture(params=WAYS)
def bad(request: pytest.FixtureRequest, provider: ScriptedProvider) -> Engine:
    return engine_at(request.param, provider.url, provider_timeout_s=1.0)


def test_text_comes_in_pieces_with_one_end_and_its_usage(real: Engine) -> None:
    found = answer(real, request("Tell a long story.", seed=None, temperature=0.0, max_tokens=9))
    assert len(found.chunks) > 2
    assert (found.finish.reason, found.finish.usage.completion_tokens) == ("length", 9)
    assert found.finish.usage.prompt_tokens > 3
    assert found.finish.model


def test_a_text_that_ends_by_itself_says_so(real: Engine) -> None:
    found = answer(real, request("Name one colour.", seed=None, temperature=0.0, max_tokens=200))
    assert found.text
    assert found.finish.reason == "stop"


def test_turns_and_the_system_s_word_reach_the_model(real: Engine) -> None:
    asked = request("And what is it called?", seed=None)
    turns = (
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "Name a river in Egypt."},
        {"role": "assistant", "content": "The longest one there."},
    )
    alone = answer(real, asked).finish.usage.prompt_tokens
    assert (
        answer(real, replace(asked, messages=turns + asked.messages)).finish.usage.prompt_tokens > alone + 10
    )


def test_several_run_at_once(real: Engine) -> None:
    found = answers(real, [request(f"Tell story number {n}.", seed=None, max_tokens=16) for n in range(4)])
    assert all(one.text for one in found)


@pytest.mark.parametrize("way", ["openai by chat", "anthropic"])
def test_a_stop_sequence_ends_the_text_before_itself(llama: LlamaServer, way: str) -> None:
    engine = engine_at(way, llama.url)
    asked = request("Count from one to ten in words.", seed=None, temperature=0.0, max_tokens=60)
    whole = answer(engine, asked).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 6]
    found = answer(engine, replace(asked, stop=(stop,)))
    assert stop not in found.text
    assert found.finish.reason == "stop"


def test_closing_midway_hangs_up(bad: Engine, provider: ScriptedProvider) -> None:
    provider.hung_up.clear()
    pieces = pieces_of(bad, request(seed=None, model="drip"))
    while not isinstance(piece := next(pieces), Chunk) or not piece.text:
        pass
    pieces.close()
    assert provider.hung_up.wait(10)


@pytest.mark.parametrize("scenario", REFUSALS)
def test_a_refusal_is_sorted_by_its_status_and_repeats_nothing(bad: Engine, scenario: str) -> None:
    status, _, code = REFUSALS[scenario]
    passes = status in (408, 409, 429) or status >= 500
    with pytest.raises(TransientEngineError if passes else PermanentEngineError) as caught:
        answer(bad, request(seed=None, model=scenario))
    assert str(status) in str(caught.value)
    assert "canary" not in str(caught.value)
    assert (code in str(caught.value)) is ("canary" not in code)
    if passes:
        wanted = {"429 in milliseconds": 1.5, "429 in seconds": 7.0, "503": 3.0}.get(scenario)
        pause_s = getattr(caught.value, "retry_after_s", None)
        if scenario == "429 at a time":
            assert 3000 < pause_s <= 3600
        else:
            assert pause_s == wanted


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_bad_key_names_its_setting(bad: Engine, status: str) -> None:
    with pytest.raises(PermanentEngineError, match=f"{bad.name.upper()}_API_KEY"):
        answer(bad, request(seed=None, model=status))


@pytest.mark.parametrize(
    "scenario",
    [
        *("500 in the middle", "truncated", "garbage", "hang", "silence in the middle"),
        *("closed", "another content type"),
    ],
)
def test_what_breaks_off_can_be_tried_again(bad: Engine, scenario: str) -> None:
    began = time.monotonic()
    with pytest.raises(TransientEngineError) as caught:
        answer(bad, request(seed=None, model=scenario))
    assert time.monotonic() - began < 10
    assert "canary" not in str(caught.value)


def test_nobody_there_is_transient() -> None:
    for way in WAYS:
        with pytest.raises(TransientEngineError, match="cannot be reached"):
            answer(engine_at(way, "http://127.0.0.1:9"), request(seed=None))


def test_what_is_asked_for_is_passed_on(provider: ScriptedProvider) -> None:
    asked = request(seed=5, temperature=0.5, top_p=0.9, stop=("END",), model="truncated", max_tokens=33)
    with pytest.raises(EngineError):
        answer(engine_at("openai by chat", provider.url), asked)
    sent = provider.asked[-1]
    assert (sent["max_tokens"], sent["temperature"], sent["top_p"]) == (33, 0.5, 0.9)
    assert (sent["stop"], sent["seed"]) == (["END"], 5)
    with pytest.raises(EngineError):
        answer(engine_at("anthropic", provider.url), asked)
    sent = provider.asked[-1]
    assert (sent["max_tokens"], sent["temperature"], sent["stop_sequences"]) == (33, 0.5, ["END"])


def test_what_a_provider_does_not_have_is_refused(provider: ScriptedProvider) -> None:
    with pytest.raises(PermanentEngineError, match="OPENAI_API=chat"):
        answer(engine_at("openai by responses", provider.url), request(seed=None, stop=("END",)))
    with pytest.raises(PermanentEngineError, match="at most 1"):
        answer(engine_at("anthropic", provider.url), request(seed=None, temperature=1.5))


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_missing_key_or_model_is_named(name: str) -> None:
    settings = Settings()
    assert f"set {name.upper()}_API_KEY" in str(engine_class(name).missing(settings))
    with pytest.raises(PermanentEngineError, match="_API_KEY"):
        engine_class(name)(settings).setup()
    engine = engine_class(name)(Settings(**{f"{name}_api_key": KEY}))
    engine.setup()
    with pytest.raises(PermanentEngineError, match=f"{name.upper()}_MODEL"):
        answer(engine, request(seed=None))


def test_a_text_without_a_length_has_the_provider_s_own() -> None:
    settings = Settings(openai_max_tokens=77, max_tokens=11)
    assert engine_class("openai")(settings).default_max_tokens() == 77
    assert engine_class("anthropic")(settings).default_max_tokens() == 11
