"""The engines of providers through their real SDKs, against a server that misbehaves in one way each.

`test_engines` has them against a real one.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.unit.generation import answer, pieces_of, request
from tests.unit.scripted_provider import DRIPS, NONSENSE, PACKED, REFUSALS, ScriptedProvider
from textgen.engines import Chunk, Engine, EngineRequest, engine_class
from textgen.engines.openai import ServerEngine
from textgen.errors import EngineError, EngineUnusable, PermanentEngineError, TransientEngineError
from textgen.lifecycle import Usage
from textgen.servers import Server
from textgen.settings import Settings

KEY = "sk-canary-7261"
#: Engine and way of speaking.
WAYS = ("openai by chat", "openai by responses", "anthropic")
CHAT = WAYS[0]


SCHEMA = {"type": "object", "properties": {"sea": {"type": "string", "maxLength": 5}}, "required": ["sea"]}
FORM = {"type": "json_schema", "name": "seas", "schema": SCHEMA}


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
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as made:
        yield made


@pytest.fixture(params=WAYS)
def bad(request: pytest.FixtureRequest, provider: ScriptedProvider) -> Engine:
    return engine_at(request.param, provider.url, provider_timeout_s=1.0)


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
        *("500 in the middle", "truncated", "hang", "silence in the middle"),
        *("closed", "another content type", "comments", "a line without an end"),
    ],
)
def test_what_breaks_off_can_be_tried_again(bad: Engine, scenario: str) -> None:
    began = time.monotonic()
    with pytest.raises(TransientEngineError) as caught:
        answer(bad, request(seed=None, model=scenario))
    assert time.monotonic() - began < 10
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("scenario", NONSENSE)
def test_an_answer_that_nobody_can_read_can_be_tried_again(bad: Engine, scenario: str) -> None:
    with pytest.raises(TransientEngineError, match="said what no provider says"):
        answer(bad, request(seed=None, model=scenario))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scenario", DRIPS)
def test_a_stream_without_text_gives_chances_to_stop(
    provider: ScriptedProvider, way: str, scenario: str
) -> None:
    provider.hung_up.clear()
    pieces = pieces_of(engine_at(way, provider.url), request(seed=None, model=scenario))
    assert [next(pieces).text for _ in range(3)] == ["", "", ""]
    pieces.close()
    assert provider.hung_up.wait(10)


@pytest.mark.parametrize("scenario", PACKED)
def test_what_is_packed_is_not_unpacked(bad: Engine, provider: ScriptedProvider, scenario: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TransientEngineError):
            answer(bad, request(seed=None, model=scenario))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert provider.headers[-1]["accept-encoding"] == "identity"


@pytest.mark.parametrize("scenario", ["401 without an end", "401 without bounds"])
def test_a_refusal_is_not_read_for_ever(bad: Engine, scenario: str) -> None:
    began = time.monotonic()
    with pytest.raises(EngineUnusable, match="refuses the key"):
        answer(bad, request(seed=None, model=scenario))
    assert time.monotonic() - began < 10


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
        answer(engine_at("anthropic", provider.url), replace(asked, seed=None))
    sent = provider.asked[-1]
    assert (sent["max_tokens"], sent["temperature"], sent["stop_sequences"]) == (33, 0.5, ["END"])


def test_what_a_provider_does_not_have_is_refused(provider: ScriptedProvider) -> None:
    for asked in (request(seed=None, stop=("END",)), request(seed=5)):
        with pytest.raises(EngineUnusable, match="set OPENAI_API to chat"):
            answer(engine_at("openai by responses", provider.url), asked)
    with pytest.raises(EngineUnusable, match="anthropic knows no seed"):
        answer(engine_at("anthropic", provider.url), request(seed=5))
    with pytest.raises(EngineUnusable, match="at most 1"):
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
    assert engine_class("openai").default_max_tokens(settings) == 77
    assert engine_class("anthropic").default_max_tokens(settings) == 11


def whole(**fields: object) -> EngineRequest:
    return request(model="whole", seed=None, **fields)


def test_usage_counts_cached_and_reasoning_tokens_alike_everywhere(bad: Engine) -> None:
    found = answer(bad, whole())
    assert found.finish.usage == Usage(11, 9, cached_tokens=5, reasoning_tokens=3)
    assert found.finish.model == "m-1"


@pytest.mark.parametrize("odd", ["abc", 1.5, 1e308, 10**30, 2**63 - 1, [1], {"a": 1}, True, -1])
@pytest.mark.parametrize(
    "names",
    [("usage",), ("completion_tokens", "output_tokens"), ("cached_tokens", "cache_read_input_tokens")],
)
def test_a_usage_that_is_no_number_of_tokens_is_not_known(
    bad: Engine, provider: ScriptedProvider, names: tuple[str, ...], odd: object
) -> None:
    provider.odd = dict.fromkeys(names, odd)
    assert answer(bad, request(seed=None, model="odd")).finish.usage == Usage()


def test_a_usage_that_is_not_told_is_not_known(bad: Engine, provider: ScriptedProvider) -> None:
    provider.odd = {"usage": None}
    assert answer(bad, request(seed=None, model="odd")).finish.usage == Usage()


@pytest.mark.parametrize(
    "odd", [{"a": 1}, 7, [1], True, "\0x", "\ud800", "two\nlines", "m" * 201], ids=lambda odd: repr(odd)[:12]
)
def test_what_is_no_name_of_a_model_is_not_taken_for_one(
    bad: Engine, provider: ScriptedProvider, odd: object
) -> None:
    provider.odd = {"model": odd}
    assert answer(bad, request(seed=None, model="odd")).finish.model is None
    provider.odd = {"model": "m" * 200}
    assert answer(bad, request(seed=None, model="odd")).finish.model == "m" * 200


def test_a_text_far_beyond_its_tokens_ends_there(bad: Engine, provider: ScriptedProvider) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(provider, "text", "é" * 100_000)
        for scenario in ("whole", "drip"):
            found = answer(bad, request(seed=None, model=scenario, max_tokens=10))
            assert (len(found.text), found.finish.reason) == (10_640, "length")
            assert (found.finish.usage, found.finish.provider_request_id) == (Usage(), "req_canary-free.1")
        assert len(answer(bad, whole(max_tokens=2000)).text) == 100_000


def test_the_first_piece_says_what_is_left_of_the_limits(bad: Engine) -> None:
    first = answer(bad, whole()).pieces[0]
    assert isinstance(first, Chunk)
    assert (first.text, first.tokens) == ("", 0)
    assert first.quota is not None
    requests, tokens = first.quota.requests, first.quota.tokens
    assert (requests.limit, requests.remaining) == (50, 49)
    assert 3500 < (requests.reset_s or 0) <= 3600
    assert (tokens.limit, tokens.remaining) == (1000, 10)


def test_the_provider_s_id_of_a_request_is_kept_however_it_ends(bad: Engine) -> None:
    assert answer(bad, whole()).finish.provider_request_id == "req_canary-free.1"
    for scenario in ("400", "429", "truncated", "500 in the middle", "garbage"):
        with pytest.raises(EngineError) as caught:
            answer(bad, request(seed=None, model=scenario))
        assert caught.value.provider_request_id == "req_canary-free.1"


@pytest.mark.parametrize("scenario", REFUSALS)
def test_only_a_limit_that_is_reached_throttles_and_only_settings_make_unusable(
    bad: Engine, scenario: str
) -> None:
    with pytest.raises(EngineError) as caught:
        answer(bad, request(seed=None, model=scenario))
    status = REFUSALS[scenario][0]
    assert getattr(caught.value, "is_throttled", False) is (status in (429, 529))
    assert isinstance(caught.value, EngineUnusable) is (status in (401, 403, 404))


@pytest.mark.parametrize(
    ("told", "is_code", "is_id"),
    [
        *(
            (KEY, False, False),
            (KEY[3:], False, False),
            ("nary-7261", False, False),
        ),
        *(("secret_team", False, False), ("a_secret_team_b", False, False), ("my_secret_te", False, False)),
        *(("4f0c9a77b1", False, True), ("a1234567", False, True), ("SomeName", False, True)),
        *(("model_not_found", True, True), ("o1.http_500", True, True), ("a" * 65, False, True)),
    ],
)
def test_neither_code_nor_id_repeats_a_secret(
    provider: ScriptedProvider, told: str, is_code: bool, is_id: bool
) -> None:
    headers = {"X-Team": "secret_team", "X-Flag": "1"}
    described = Server(base_url=f"{provider.url}/v1", api_key=KEY, headers=headers)
    engine = ServerEngine.named("lab", described)(Settings())
    engine.setup()
    with pytest.raises(PermanentEngineError) as caught:
        answer(engine, request(seed=None, model=f"echo {told}"))
    assert (told in str(caught.value), caught.value.provider_request_id) == (is_code, told if is_id else None)


def test_a_key_is_no_name_of_a_model(bad: Engine, provider: ScriptedProvider) -> None:
    provider.odd = {"model": f"tiny {KEY}"}
    assert answer(bad, request(seed=None, model="odd")).finish.model is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_names_the_setting_of_the_address(bad: Engine, status: int) -> None:
    with pytest.raises(EngineUnusable, match=f"{bad.name.upper()}_BASE_URL") as caught:
        answer(bad, request(seed=None, model=f"redirect {status}"))
    assert "canary" not in str(caught.value)
    assert str(status) in str(caught.value)


def test_no_cookie_is_kept(bad: Engine, provider: ScriptedProvider) -> None:
    for _ in range(2):
        with pytest.raises(EngineError):
            answer(bad, request(seed=None, model="redirect 307"))
    assert "cookie" not in provider.headers[-1]


def test_a_form_that_is_asked_for_is_passed_on(provider: ScriptedProvider) -> None:
    sent = {}
    for way in WAYS:
        answer(engine_at(way, provider.url), whole(response_format=FORM))
        sent[way] = provider.asked[-1]
    rest = {"name": "seas", "schema": SCHEMA}
    assert sent["openai by chat"]["response_format"] == {"type": "json_schema", "json_schema": rest}
    assert sent["openai by responses"]["text"] == {"format": {"type": "json_schema", **rest}}
    assert sent["anthropic"]["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}


def test_json_without_a_schema_is_no_form_of_anthropic_s(provider: ScriptedProvider) -> None:
    with pytest.raises(PermanentEngineError, match="schema"):
        answer(engine_at("anthropic", provider.url), whole(response_format={"type": "json_object"}))


def test_a_named_server_is_spoken_to_as_it_is_described(provider: ScriptedProvider) -> None:
    described = Server(
        base_url=f"{provider.url}/v1", api_key=KEY, model="whole", headers={"X-Team": "sea"}, max_tokens=77
    )
    engine = ServerEngine.named("lab", described)(Settings(openai_api_key="sk-of-another"))
    engine.setup()
    found = answer(engine, request(seed=5, stop=("END",)))
    assert (found.text, engine.name, engine.default_max_tokens(engine.settings)) == ("Hello", "lab", 77)
    headers, sent = provider.headers[-1], provider.asked[-1]
    assert (headers["authorization"], headers["x-team"]) == (f"Bearer {KEY}", "sea")
    assert (sent["seed"], sent["stop"], sent["max_tokens"]) == (5, ["END"], 12)
    with pytest.raises(EngineUnusable, match="api_key of lab in TEXTGEN_SERVERS"):
        answer(engine, request(seed=None, model="401"))


def test_azure_s_deployments_are_spoken_to_by_their_version(provider: ScriptedProvider) -> None:
    described = Server(base_url=provider.url, api_key=KEY, model="whole", api_version="2026-01-01")
    engine = ServerEngine.named("azure", described)(Settings())
    engine.setup()
    assert answer(engine, request(seed=None)).text == "Hello"
    assert provider.paths[-1] == "/openai/deployments/whole/chat/completions?api-version=2026-01-01"
    assert provider.headers[-1]["api-key"] == KEY


@pytest.mark.parametrize("model", ["..", ".", "\ud800"])
def test_what_cannot_be_asked_of_azure_is_left_to_others(provider: ScriptedProvider, model: str) -> None:
    described = Server(base_url=provider.url, api_key=KEY, model="whole", api_version="2026-01-01")
    engine = ServerEngine.named("azure", described)(Settings())
    engine.setup()
    with pytest.raises(EngineUnusable, match="cannot be asked for this model"):
        answer(engine, request(seed=None, model=model))


def test_what_cannot_be_sent_is_left_to_others(bad: Engine) -> None:
    with pytest.raises(EngineUnusable, match="or with this text"):
        answer(bad, request("\ud800", seed=None))


def test_a_provider_is_asked_for_its_models(bad: Engine) -> None:
    assert bad.models() == ["tiny"]


def test_a_bad_key_is_found_by_asking(provider: ScriptedProvider) -> None:
    for name in ("openai", "anthropic"):
        url = f"{provider.url}/v1" if name == "openai" else provider.url
        engine = engine_class(name)(Settings(**{f"{name}_api_key": "sk-wrong", f"{name}_base_url": url}))
        engine.setup()
        with pytest.raises(EngineUnusable, match=f"{name.upper()}_API_KEY") as caught:
            engine.check()
        assert "sk-wrong" not in str(caught.value)


def test_an_account_is_that_of_address_and_key_and_shows_neither() -> None:
    openai = engine_class("openai")
    one, other = Settings(openai_api_key="sk-one"), Settings(openai_api_key="sk-other")
    assert openai.account(one) == openai.account(one) != openai.account(other)
    assert "sk-one" not in openai.account(one)
    assert openai.account(one) != engine_class("anthropic").account(Settings(anthropic_api_key="sk-one"))
    assert openai.is_remote
    assert not engine_class("mock").is_remote
