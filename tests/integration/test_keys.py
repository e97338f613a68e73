"""API keys: who is let in, what a key may do, and that an owner sees only what is theirs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
import redis
from click.testing import CliRunner
from werkzeug.routing import Rule

from tests.environment import Environment, new_folder, of_process
from tests.processes import Process, free_port, wait_until
from textgen import api_keys
from textgen.cli import cli
from textgen.client import TextGenerationClient
from textgen.errors import Forbidden, InvalidRequest, Unauthenticated
from textgen.http import create_app
from textgen.http.access import SCOPES
from textgen.lifecycle import new_task_id

ADMIN_KEY = "tg_" + "k" * 43
CANARY = "canary-4b1e"


@dataclass
class Server:
    """A web app that asks for keys, its worker, and a client for each of them."""

    env: Environment
    web: Any

    def http(self, key: str | None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.web.url, timeout=30, headers=headers)

    def run(self, *arguments: str) -> Any:
        """Run a command of the CLI, which must succeed."""
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == 0, result.output
        return result

    def key(self, *options: str, owner: str = "ann") -> tuple[str, str]:
        """Make a key; returns its id and the key."""
        made = json.loads(
            self.run("keys", "create", "--name", "test", "--owner", owner, "--json", *options).stdout
        )
        return made["id"], made["key"]


@pytest.fixture(scope="module")
def server(
    live: Environment, module_start_web: Callable[..., Any], module_start_worker: Callable[..., Any]
) -> Server:
    env = live | {"TEXTGEN_REQUIRE_KEYS": "true", "TEXTGEN_ADMIN_KEY": ADMIN_KEY}
    module_start_worker(env, "threads", 2).wait_ready()
    return Server(env, module_start_web(env))


def rules() -> list[tuple[Rule, str]]:
    """Every route of the app with each of its methods."""
    found = create_app().url_map.iter_rules()
    return [(rule, method) for rule in found for method in sorted(rule.methods or ()) if method != "HEAD"]


def names(given: tuple[Rule, str]) -> str:
    return f"{given[1]} {given[0].rule}"


def without_request(answer: httpx.Response) -> tuple[int, str, list[str]]:
    """What a caller could tell apart."""
    return answer.status_code, answer.text, sorted(set(answer.headers) - {"date"})


@pytest.fixture(scope="module")
def secret_task(server: Server) -> Iterator[tuple[str, httpx.Client]]:
    """A finished task of Ann's, and Ann."""
    _, key = server.key()
    with server.http(key) as ann:
        asked = {"prompt": CANARY, "engine": "mock", "metadata": {"note": CANARY}}
        task_id = ann.post("/v1/tasks", json=asked, headers={"Prefer": "wait=20"}).json()["task_id"]
        assert ann.get(f"/v1/tasks/{task_id}").json()["status"] == "COMPLETED"
        yield task_id, ann


@pytest.fixture
def bob(server: Server) -> Iterator[httpx.Client]:
    _, key = server.key("--scope", "generate", "--scope", "read", "--scope", "admin", owner="bob-of-keys")
    with server.http(key) as made:
        yield made


def test_each_route_says_what_it_needs() -> None:
    assert {rule.endpoint for rule, _ in rules()} == set(SCOPES)


@pytest.mark.parametrize("given", rules(), ids=names)
def test_each_route_needs_its_scope(server: Server, given: tuple[Rule, str]) -> None:
    rule, method = given
    path, needed = rule.rule.replace("<task_id>", new_task_id()), SCOPES[rule.endpoint]
    with server.http(None) as nobody:
        answer = nobody.request(method, path)
    if needed is None:
        assert answer.status_code in (200, 302, 404)
        return
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="textgen"')
    assert answer.json()["type"] == "urn:textgen:problem:unauthenticated"
    others = [option for scope in api_keys.SCOPES if scope != needed for option in ("--scope", scope)]
    with server.http(server.key(*others)[1]) as limited:
        answer = limited.request(method, path)
    assert answer.status_code == 403
    assert f'scope="{needed}"' in answer.headers["WWW-Authenticate"]
    with server.http(server.key("--scope", needed)[1]) as allowed:
        assert allowed.request(method, path).status_code not in (401, 403)


@pytest.mark.parametrize("given", rules(), ids=names)
def test_a_foreign_task_is_answered_like_an_unknown_one(
    secret_task: tuple[str, httpx.Client], bob: httpx.Client, given: tuple[Rule, str]
) -> None:
    (task_id, ann), (rule, method) = secret_task, given
    before = ann.get(f"/v1/tasks/{task_id}").json()
    body = {"content": b"{}", "headers": {"Content-Type": "application/json"}} if method == "POST" else {}
    if "<task_id>" in rule.rule:
        foreign, unknown = (
            bob.request(method, rule.rule.replace("<task_id>", one), **body)
            for one in (task_id, new_task_id())
        )
        assert without_request(foreign) == without_request(unknown)
        assert foreign.status_code == 404
    else:
        shown = bob.request(method, rule.rule, **body).text
        assert task_id not in shown
        assert CANARY not in shown
    assert ann.get(f"/v1/tasks/{task_id}").json() == before


def test_only_an_admin_clears_a_cache_that_all_share(
    server: Server, module_start_web: Callable[..., Any]
) -> None:
    shared = Server(server.env, module_start_web(server.env | {"TEXTGEN_CACHE_SHARED": "true"}))
    for scopes, expected in ((["generate"], 403), (["generate", "admin"], 200)):
        _, key = shared.key(*(option for scope in scopes for option in ("--scope", scope)))
        with shared.http(key) as http:
            assert http.delete("/v1/cache").status_code == expected


def test_an_owner_s_idempotency_keys_and_usage_are_apart(
    secret_task: tuple[str, httpx.Client], bob: httpx.Client
) -> None:
    _, ann = secret_task
    asked, header = {"prompt": "Hello", "engine": "mock"}, {"Idempotency-Key": "the-same"}
    first, second = (one.post("/v1/tasks", json=asked, headers=header) for one in (ann, bob))
    assert first.json()["task_id"] != second.json()["task_id"]
    assert "Idempotent-Replayed" not in second.headers
    wait_until(
        lambda: [row["requests"] for row in bob.get("/v1/usage").json()["data"]] == [1],
        20,
        "Bob's one task is counted, and nobody else's",
    )


def test_an_owner_s_cached_texts_are_apart(secret_task: tuple[str, httpx.Client], bob: httpx.Client) -> None:
    _, ann = secret_task
    asked, wait = {"prompt": "Hello", "engine": "mock", "seed": 1}, {"Prefer": "wait=20"}

    def is_cached(one: httpx.Client) -> bool:
        return bool(one.post("/v1/tasks", json=asked, headers=wait).json()["cached"])

    assert [is_cached(one) for one in (ann, bob, ann, bob)] == [False, False, True, True]
    assert bob.delete("/v1/cache").json() == {"cleared": 1}
    assert [is_cached(one) for one in (ann, bob)] == [True, False]


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Basic dGc6dGc=", "Bearer tg_", f"Bearer tg_{'0' * 12}_{'a' * 43}", "Bearer é"],
)
def test_what_is_no_key_lets_nobody_in(server: Server, header: str) -> None:
    answer = httpx.get(f"{server.web.url}/v1/tasks", headers={"Authorization": header.encode()})
    assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")
    assert "tg_0" not in answer.text


def test_a_revoked_and_an_expired_key_are_as_unknown_as_any_other(server: Server) -> None:
    key_id, revoked = server.key()
    _, expiring = server.key("--expires-in", "1s")
    _, key = server.key()
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    with server.http(revoked) as http:
        assert http.get("/v1/tasks").status_code == 200
        server.run("keys", "revoke", key_id)
        first = without_request(http.get("/v1/tasks"))
    with server.http(expiring) as http:
        wait_until(lambda: http.get("/v1/tasks").status_code == 401, 10, "the key expires")
        second = without_request(http.get("/v1/tasks"))
    with server.http(wrong) as http:
        third = without_request(http.get("/v1/tasks"))
    assert first == second == third
    assert first[0] == 401
    with pytest.raises(InvalidRequest, match="no API key"):
        api_keys.revoke(key_id)


def test_a_key_and_the_one_that_replaces_it_are_both_good_for_a_while(server: Server) -> None:
    old_id, old = server.key("--limit", "requests_per_minute=50")
    new = json.loads(server.run("keys", "rotate", old_id, "--overlap", "2s", "--json").stdout)
    assert (new["owner"], new["limits"]) == ("ann", {"requests_per_minute": 50})
    with server.http(old) as http, server.http(new["key"]) as newer:
        assert [one.get("/v1/tasks").status_code for one in (http, newer)] == [200, 200]
        secret = http.post("/v1/webhooks/secret").json()["secret"]
        assert secret.startswith("whsec_")
        # the receivers of the one go on verifying what the other submits
        assert newer.post("/v1/webhooks/secret").json()["type"] == "urn:textgen:problem:secret-shown"
        wait_until(lambda: http.get("/v1/tasks").status_code == 401, 10, "the old key expires")
        assert newer.get("/v1/tasks").status_code == 200


def test_each_key_has_a_webhook_secret_of_its_own(server: Server) -> None:
    shown = []
    for _ in range(2):
        with server.http(server.key()[1]) as http:
            shown.append(http.post("/v1/webhooks/secret").json()["secret"])
    assert len(set(shown)) == 2


def test_a_limit_of_a_key_holds_for_it_alone(server: Server) -> None:
    _, tight = server.key("--limit", "requests_per_minute=2")
    _, other = server.key()
    asked = {"prompt": "Hello", "engine": "mock"}
    with server.http(tight) as http, server.http(other) as free:
        # whatever a client says of where it comes from
        claims = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(4)]
        codes = [http.post("/v1/tasks", json=asked, headers=claim).status_code for claim in claims]
        assert codes == [202, 202, 429, 429]
        assert [free.post("/v1/tasks", json=asked).status_code for _ in range(4)] == [202] * 4


def test_no_owner_holds_more_requests_open_than_it_may(server: Server, start_web: Callable[..., Any]) -> None:
    tight = Server(server.env, start_web(server.env | {"TEXTGEN_LIMIT_OPEN": "2"}))
    asked = {"prompt": "Hello", "engine": "mock", "metadata": {"mock": {"failure": "hangs"}}}
    with ExitStack() as stack:
        ann, bob = (stack.enter_context(tight.http(server.key(owner=name)[1])) for name in ("cleo", "dan"))
        events = [one.post("/v1/tasks", json=asked).headers["Location"] + "/events" for one in (ann, bob)]
        for one, path in zip((ann, bob), events, strict=True):
            stack.callback(one.post, path.replace("events", "cancel"))
        for _ in range(3):
            assert ann.head(events[0]).status_code == 200  # over at once
        held = [ExitStack(), ExitStack()]
        for one in held:
            stack.push(one)
            assert one.enter_context(ann.stream("GET", events[0])).status_code == 200

        for path in (events[0], events[0].replace("/events", "?wait_s=5")):
            refused = ann.get(path)
            assert (refused.status_code, refused.json()["limit"]) == (429, "open")
            assert refused.headers["Retry-After"] == "5"
        for header in ({"Accept": "text/event-stream"}, {"Prefer": "wait=5"}):
            accepted = ann.post("/v1/tasks", json=asked | {"metadata": {}}, headers=header)
            assert (accepted.status_code, accepted.json()["owner"]) == (202, "cleo")
        with bob.stream("GET", events[1]) as others:
            assert others.status_code == 200
        held[0].close()
        wait_until(lambda: _opens(ann, events[0]), 10, "the place is given back")


def _opens(http: httpx.Client, path: str) -> bool:
    with http.stream("GET", path) as answer:
        return answer.status_code == 200


def test_the_admin_key_needs_no_store_and_may_do_everything(server: Server) -> None:
    with server.http(ADMIN_KEY) as http:
        assert http.get("/v1/dead-letters").status_code == 200
        answer = http.post("/v1/tasks", json={"prompt": "Hello", "engine": "mock"})
        assert (answer.status_code, answer.json()["owner"]) == (202, "default")


def test_a_key_stands_nowhere_but_with_its_owner(server: Server) -> None:
    _, key = server.key()
    with server.http(key) as http:
        http.get("/v1/tasks")
        http.get("/v1/tasks", headers={"Authorization": f"Bearer {key}x"})
    secret = key.rsplit("_", 1)[1]
    store = redis.Redis.from_url(server.env["REDIS_URL"], decode_responses=True)
    assert secret not in json.dumps(store.hgetall("api-keys"))
    assert secret not in server.web.log()
    assert secret not in server.run("keys", "list").output
    assert "digest" not in server.run("keys", "list", "--json").output


def test_the_client_shows_its_key_and_names_what_is_wrong(server: Server) -> None:
    _, key = server.key("--scope", "read")
    with TextGenerationClient(server.web.url, key) as client:
        assert list(client.list(limit=1)) is not None
        with pytest.raises(Forbidden, match="generate"):
            client.create_task("Hello")
    with TextGenerationClient(server.web.url) as client, pytest.raises(Unauthenticated, match="Bearer"):
        client.create_task("Hello")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--name", ""], "name"),
        (["--name", "a", "--owner", "no owner"], "owner"),
        (["--name", "a", "--owner", ""], "owner"),
        (["--name", "a", "--scope", "all"], "scope"),
        (["--name", "a", "--expires-in", "soon"], "90d"),
        (["--name", "a", "--expires-in", "0s"], "expires_in"),
        (["--name", "a", "--limit", "tasks=many"], "tasks=100"),
        (["--name", "a", "--limit", "cakes=1"], "tokens_per_day"),
    ],
)
def test_a_key_that_cannot_be_is_refused(server: Server, options: list[str], reason: str) -> None:
    result = CliRunner().invoke(cli, ["keys", "create", *options])
    assert result.exit_code == 2
    assert reason in result.output


def test_there_are_only_so_many_keys(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from textgen.store import api_keys as kept

    monkeypatch.setattr(kept, "MAX_KEYS", len(api_keys.every()) + 1)
    made, _ = api_keys.create("last", "ann", expires_in=timedelta(days=1))
    result = CliRunner().invoke(cli, ["keys", "create", "--name", "one too many"])
    assert (result.exit_code, "revoke some" in result.output) == (2, True)
    api_keys.revoke(made.id)


def test_without_keys_the_web_app_does_not_listen_for_others(
    module_stack_env: Callable[..., Environment],
) -> None:
    env, folder = module_stack_env("valkey"), new_folder("web")
    command = [sys.executable, "-m", "gunicorn", "--config", "python:textgen.webserver"]
    bind = ["--bind", f"0.0.0.0:{free_port()}"]
    with Process(
        [*command, *bind, "web:app"], env=of_process(env), cwd=folder, log_file=folder / "log"
    ) as web:
        assert web.wait(30) != 0
    assert "textgen keys create" in web.log()
    assert "Traceback" not in web.log()
