"""Providers through whole processes: named servers, forms, what they cost, and bad keys found at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.environment import Environment
from tests.integration.terminals import documents, textgen
from tests.processes import wait_until
from tests.programs import WorkerProcess
from tests.unit.scripted_provider import ScriptedProvider

KEY = "sk-canary-7261"
SCHEMA = {"type": "object", "properties": {"sea": {"type": "string"}}, "required": ["sea"]}
FORM = {"type": "json_schema", "json_schema": {"name": "seas", "schema": SCHEMA}}
#: Dollars per million tokens.
PRICES = {"lab": {"prompt": 1000, "completion": 2000, "cached": 100}}


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as made:
        yield made


@pytest.fixture(scope="module")
def env(module_stack_env: Callable[..., Environment], provider: ScriptedProvider) -> Environment:
    lab = {"base_url": f"{provider.url}/v1", "api_key": KEY, "model": "whole"}
    given: dict[str, Any] = {"TEXTGEN_SERVERS": json.dumps({"lab": lab}), "TEXTGEN_ENGINE": "lab"}
    given |= {"TEXTGEN_PRICES": json.dumps(PRICES), "TEXTGEN_MAX_ATTEMPTS": 2, "TEXTGEN_RETRY_BASE_S": 0.1}
    given["TEXTGEN_BREAKER_FAILURES"] = 1000  # so many fail here that nobody else would get a turn
    return module_stack_env("rabbitmq", **given)


@pytest.fixture(scope="module")
def worker(env: Environment, module_start_worker: Callable[..., Any]) -> WorkerProcess:
    found: WorkerProcess = module_start_worker(env, "threads", 4).wait_ready()
    return found


@pytest.fixture(scope="module")
def web(env: Environment, worker: WorkerProcess, module_start_web: Callable[..., Any]) -> str:
    return str(module_start_web(env).url)


def generate(web: str, **fields: Any) -> dict[str, Any]:
    answer = httpx.post(
        f"{web}/v1/tasks",
        json={"prompt": "canary-prompt", **fields},
        headers={"Prefer": "wait=30"},
        timeout=40,
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_server_named_by_settings_alone_writes_and_its_tokens_are_paid_for(web: str) -> None:
    record = generate(web)
    assert (record["status"], record["engine"], record["model"]) == ("COMPLETED", "lab", "m-1")
    assert record["provider_request_id"] == "req_canary-free.1"
    assert record["usage"] == {
        "prompt_tokens": 11,
        "completion_tokens": 9,
        "total_tokens": 20,
        "cached_tokens": 5,
        "reasoning_tokens": 3,
        "cost_usd": pytest.approx((6 * 1000 + 5 * 100 + 9 * 2000) / 1e6),
    }
    listed = httpx.get(f"{web}/v1/tasks?engine=lab").json()["data"]
    assert record["task_id"] in [one["task_id"] for one in listed]


def test_the_pieces_count_where_the_usage_is_not_known(web: str, provider: ScriptedProvider) -> None:
    provider.odd = {"usage": {"prompt_tokens": 1e308, "completion_tokens": "many"}}
    record = generate(web, model="odd")
    assert (record["status"], record["attempt"]) == ("COMPLETED", 1)
    assert (record["usage"]["prompt_tokens"], record["usage"]["completion_tokens"]) == (0, 1)


def test_a_text_that_fits_its_schema_is_completed(web: str, provider: ScriptedProvider) -> None:
    provider.text = '{"sea": "Aral"}'
    record = generate(web, response_format=FORM)
    assert (record["status"], json.loads(record["result"])) == ("COMPLETED", {"sea": "Aral"})
    assert record["params"]["response_format"] == {"type": "json_schema", "name": "seas", "schema": SCHEMA}
    assert provider.asked[-1]["response_format"] == FORM


def test_a_text_that_does_not_fit_is_tried_again_paid_for_and_never_completed(
    web: str, provider: ScriptedProvider
) -> None:
    provider.text = '{"sea": 7}'
    record = generate(web, response_format=FORM)
    assert (record["status"], record["attempt"]) == ("FAILED", 2)
    assert record["error"] == {
        "type": "invalid_output",
        "message": "the text breaks the schema's rule `type`",
        "retryable": True,
    }
    assert record["usage"]["cost_usd"] == pytest.approx(2 * (6 * 1000 + 5 * 100 + 9 * 2000) / 1e6)
    assert record["provider_request_id"] == "req_canary-free.1"


def test_a_text_that_was_cut_off_asks_for_more_tokens_and_is_not_tried_again(web: str) -> None:
    record = generate(web, engine="mock", response_format=FORM, max_tokens=1)
    assert (record["status"], record["attempt"]) == ("FAILED", 1)
    assert record["error"]["type"] == "invalid_output"
    assert "raise that" in record["error"]["message"]


def test_the_mock_writes_what_fits_and_says_so_where_it_finds_nothing(web: str) -> None:
    assert "sea" in json.loads(generate(web, engine="mock", response_format=FORM)["result"])
    hard = {"type": "json_schema", "schema": {"type": "string", "pattern": "^[0-9]{12}$"}}
    assert "fits this schema" in generate(web, engine="mock", response_format=hard)["error"]["message"]


@pytest.mark.parametrize(
    "scenario", ["401", "429", "an odd code", "500 in the middle", "garbage", "another content type"]
)
def test_neither_key_nor_prompt_is_in_a_log_or_an_error(
    web: str, worker: WorkerProcess, scenario: str
) -> None:
    record = generate(web, model=scenario)
    assert record["status"] == "FAILED"
    assert record["task_id"] in worker.log()
    assert "canary" not in json.dumps(record["error"]) + worker.log()


@pytest.mark.parametrize("scenario", ["comments", "a line without an end"])
def test_a_cancel_hangs_up_on_a_provider_that_says_no_event(
    web: str, provider: ScriptedProvider, scenario: str
) -> None:
    provider.hung_up.clear()
    path = (
        f"{web}/v1/tasks/"
        + httpx.post(f"{web}/v1/tasks", json={"prompt": "canary-prompt", "model": scenario}).json()["task_id"]
    )
    wait_until(lambda: httpx.get(path).json()["status"] == "PROCESSING", 20, "it is asked")
    assert httpx.post(f"{path}/cancel").is_success
    assert provider.hung_up.wait(20)
    assert httpx.get(path).json()["status"] == "CANCELLED"


def test_engines_are_listed_over_http_with_their_prices_and_without_keys(web: str) -> None:
    answer = httpx.get(f"{web}/v1/engines")
    listed = {one["name"]: one for one in answer.json()["data"]}
    assert {"lab", "mock", "openai", "anthropic", "local"} <= listed.keys()
    assert (listed["lab"]["default"], listed["lab"]["ready"], listed["lab"]["model"]) == (True, True, "whole")
    assert listed["lab"]["prices"] == {"*": {"prompt": 1000, "completion": 2000, "cached": 100}}
    assert not listed["openai"]["ready"]
    assert KEY not in answer.text


def test_check_asks_each_provider_and_finds_nothing_wrong(web: str, env: Environment) -> None:
    found = textgen(env, "check", "--json")
    assert found.returncode == 0, found.stdout
    [parts] = documents(found)
    assert {"settings", "broker", "store", "engine lab"} <= parts.keys()
    assert not any(parts.values())
    [rows] = documents(textgen(env, "engines", "--check", "--json"))
    assert next(row["models"] for row in rows if row["name"] == "lab") == ["tiny"]


@pytest.mark.parametrize(
    ("given", "part", "wrong"),
    [
        ({"OPENAI_API_KEY": "sk-wrong", "TEXTGEN_ENGINE": "openai"}, "engine openai", "OPENAI_API_KEY"),
        ({"TEXTGEN_ENGINE": "openai", "OPENAI_BASE_URL": ""}, "engine openai", "set OPENAI_API_KEY"),
        ({"TEXTGEN_SERVERS": '{"mock": {"base_url": "http://x"}}'}, "settings", "is an installed engine"),
        ({"TEXTGEN_SERVERS": '{"lab": {"key": "sk-wrong"}}'}, "settings", "lab.key"),
        ({"TEXTGEN_SERVERS": "sk-wrong"}, "settings", "TEXTGEN_SERVERS"),
        ({"TEXTGEN_ENGINE": "nobody"}, "default engine", "TEXTGEN_ENGINE"),
        ({"TEXTGEN_MAX_TOKENS": "many"}, "settings", "TEXTGEN_MAX_TOKENS"),
    ],
)
def test_check_says_what_is_wrong_and_which_setting_mends_it(
    env: Environment, provider: ScriptedProvider, given: dict[str, str], part: str, wrong: str
) -> None:
    found = textgen(env | {"OPENAI_BASE_URL": f"{provider.url}/v1"} | given, "check", "--json")
    assert found.returncode == 1, found.stdout + found.stderr
    [parts] = documents(found)
    assert wrong in parts[part]
    assert "sk-wrong" not in found.stdout + found.stderr


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_finds_a_bad_key_when_it_starts(
    env: Environment, provider: ScriptedProvider, start_worker: Callable[..., Any], pool: str
) -> None:
    bad = {"OPENAI_API_KEY": "sk-wrong", "TEXTGEN_ENGINE": "openai", "OPENAI_BASE_URL": f"{provider.url}/v1"}
    worker = start_worker(env | bad, pool, 2).wait_ready()
    worker.wait_for_log("refuses the key: see OPENAI_API_KEY")
    assert worker.is_alive
    assert "sk-wrong" not in worker.log()


def test_a_worker_says_which_key_is_missing(env: Environment, start_worker: Callable[..., Any]) -> None:
    worker = start_worker(env | {"TEXTGEN_ENGINE": "anthropic"}, "threads", 2).wait_ready()
    worker.wait_for_log("set ANTHROPIC_API_KEY")


def test_a_worker_does_not_start_with_a_server_that_hides_an_engine(
    env: Environment, start_worker: Callable[..., Any]
) -> None:
    worker = start_worker(env | {"TEXTGEN_SERVERS": '{"mock": {"base_url": "http://x"}}'}, "threads", 2)
    assert worker.wait(30) != 0
    assert "mock: is an installed engine" in worker.log()
