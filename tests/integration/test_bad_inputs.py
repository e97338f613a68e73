"""Every bad input to the HTTP API in one table: each gets its answer, and nothing is left of it.

What is no HTTP at all (over-long lines, wrong lengths, bodies that do not come) is in
`test_web_server.py`, addresses of webhooks that nobody may call in `test_webhook_guard.py`.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import kombu
import pytest
import redis
from amqp import NotFound

from tests.environment import Environment
from textgen.lifecycle import new_task_id

CANARY = "canary-90d2"
ADMIN_KEY = "tg_" + "k" * 43
JSON = {"Content-Type": "application/json"}
ID = new_task_id()
MAX_CHARS = 1000


@dataclass(frozen=True)
class Case:
    """A request and the status that answers it."""

    name: str
    status: int
    body: bytes | None = None
    method: str = "POST"
    path: str = "/v1/tasks"
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    key: str = ADMIN_KEY


def body(name: str, status: int, given: bytes | str) -> Case:
    return Case(name, status, given if isinstance(given, bytes) else given.encode())


def fields(name: str, status: int = 422, **given: Any) -> Case:
    return body(name, status, json.dumps({"prompt": CANARY, **given}))


def path(name: str, status: int, of: str, method: str = "GET", **more: Any) -> Case:
    return Case(name, status, None, method, of, {}, **more)


WEBHOOKS = (
    *(
        "http://example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/",
        "ftp://example.com",
    ),
    *(
        "https://0x7f000001/",
        "https://2130706433/",
        "https://user:pw@example.com/",
        "https://example.com:22/",
    ),
    *("https://10.0.0.1/", "https://[::ffff:127.0.0.1]/", "not an address", ""),
)

CASES = [
    body("an empty body", 400, ""),
    body("broken JSON", 400, '{"prompt": "' + CANARY),
    *(body(f"JSON that is no object: {text}", 422, text) for text in ("[]", '"x"', "null", "5", "{}")),
    *(
        fields(f"a prompt that is {value!r:.30}", prompt=value)
        for value in (None, 5, [CANARY], {"a": CANARY}, True)
    ),
    *(
        fields(f"a blank prompt: {value!r}", prompt=value)
        for value in ("", "  \t\n", "\u200b\u200d", "\x01\x02")
    ),
    *(
        Case(f"content type {kind}", 415, b'{"prompt": "x"}', headers={"Content-Type": kind} if kind else {})
        for kind in ("text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data")
    ),
    body("a temperature that is NaN", 422, '{"prompt": "x", "temperature": NaN}'),
    body("a temperature that is infinite", 422, '{"prompt": "x", "temperature": Infinity}'),
    body("max_tokens 1e999", 422, '{"prompt": "x", "max_tokens": 1e999}'),
    *(fields(f"max_tokens {value!r}", max_tokens=value) for value in ("abc", -1, 0, True, 1.5)),
    body("a number of 5000 digits", 400, '{"prompt": "x", "max_tokens": ' + "9" * 5000 + "}"),
    body("half a character", 422, '{"prompt": "\\ud800"}'),
    body("a NUL", 422, '{"prompt": "a\\u0000b"}'),
    body("Latin-1", 400, '{"prompt": "é"}'.encode("latin-1")),
    body("UTF-16", 400, '{"prompt": "x"}'.encode("utf-16")),
    body("a field twice", 400, '{"prompt": "a", "prompt": "b"}'),
    body("nesting 100,000 deep", 400, "[" * 100_000),
    body("a value nested 100,000 deep", 400, '{"prompt": ' + "[" * 100_000),
    body("two megabytes", 413, b'{"prompt": "' + b"x" * 2_000_000 + b'"}'),
    Case("gzip", 415, gzip.compress(b'{"prompt": "x"}'), headers={**JSON, "Content-Encoding": "gzip"}),
    path("another method", 405, "/v1/tasks", "PUT"),
    path("another method of a task", 405, f"/v1/tasks/{ID}", "POST"),
    path("an unknown route", 404, "/v1/unknown"),
    fields("a character too many", prompt="x" * (MAX_CHARS + 1)),
    fields("an unknown field", promt="x"),
    *(fields(f"a webhook to {url}", webhook={"url": url}) for url in WEBHOOKS),
    path("an unknown id", 404, f"/v1/tasks/{ID}"),
    *(
        path(f"an id that is none: {text!r}", 404, f"/v1/tasks/{text}")
        for text in ("*", "a%00b", "%ff", "a%0d%0ab")
    ),
    path("an id that climbs", 404, "/v1/tasks/..%2f..%2fetc"),
    path("an id in capitals", 404, f"/v1/tasks/{ID.upper()}"),
    path("an id in braces", 404, f"/v1/tasks/%7B{ID}%7D"),
    path("no key", 401, "/v1/tasks", key=""),
    path("a bad key", 401, "/v1/tasks", key="tg_" + CANARY),
    path("a key in the address", 401, f"/v1/tasks?api_key={ADMIN_KEY}", key=""),
    Case(
        "an idempotency key too long", 400, b'{"prompt": "x"}', headers={**JSON, "Idempotency-Key": "k" * 256}
    ),
    Case(
        "an idempotency key that is empty", 400, b'{"prompt": "x"}', headers={**JSON, "Idempotency-Key": ""}
    ),
    path("cancel of an unknown task", 404, f"/v1/tasks/{ID}/cancel", "POST"),
    path("a parameter of another route", 422, "/v1/tasks?wait_s=5"),
    path("a page that is too long", 422, "/v1/tasks?limit=1000000"),
    path("a parameter given twice", 422, "/v1/tasks?status=PENDING&status=FAILED"),
    path("a cursor that is none", 422, f"/v1/tasks?cursor={CANARY}"),
    path("a filter that is not indexed", 422, f"/v1/tasks?metadata.user={CANARY}"),
    path("a wait that is none", 422, f"/v1/tasks/{ID}?wait_s=long"),
    path("an event that is none", 422, f"/v1/tasks/{ID}/events?after={CANARY}"),
    path("a day that is none", 422, "/v1/usage?from=2026-02-30"),
]


@pytest.fixture(scope="module")
def env(module_stack_env: Callable[..., Environment]) -> Environment:
    return module_stack_env("rabbitmq", TEXTGEN_ADMIN_KEY=ADMIN_KEY, TEXTGEN_MAX_PROMPT_CHARS=str(MAX_CHARS))


@pytest.fixture(scope="module")
def url(env: Environment, module_start_web: Callable[..., Any]) -> str:
    return str(module_start_web(env).url)


@pytest.fixture(autouse=True)
def nothing_left(env: Environment) -> Any:
    """Zero messages and zero keys are left of what a test sent."""
    yield
    assert redis.Redis.from_url(env["REDIS_URL"]).keys("*") == []
    with kombu.Connection(env["CELERY_BROKER_URL"]) as connection:
        for name in ("text_generation_tasks", "text_generation_tasks.bulk", "text_generation_tasks.dead"):
            with connection.channel() as channel, contextlib.suppress(NotFound):
                assert channel.queue_declare(name, passive=True).message_count == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("wanted", ["*/*", "text/html"])
def test_a_bad_input_gets_its_answer(url: str, case: Case, wanted: str) -> None:
    headers = {**case.headers, "Accept": wanted}
    if case.key:
        headers["Authorization"] = f"Bearer {case.key}"
    with httpx.Client(base_url=url, timeout=30) as http:
        answer = http.request(case.method, case.path, content=case.body, headers=headers)
    assert answer.status_code == case.status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    problem = answer.json()
    assert (problem["status"], bool(problem["title"]), bool(problem["detail"])) == (case.status, True, True)
    for repeated in (CANARY, ADMIN_KEY, "Traceback", "canary", ID.upper()):
        assert repeated not in answer.text
    if case.status == 422:
        assert all(error["field"] and error["reason"] for error in problem["errors"])


def test_a_body_in_pieces_that_is_too_long_is_413(url: str) -> None:
    pieces = iter([b'{"prompt": "', b"x" * 2_000_000])
    headers = {**JSON, "Authorization": f"Bearer {ADMIN_KEY}"}
    answer = httpx.post(f"{url}/v1/tasks", content=pieces, headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (413, 413)


def test_a_request_that_names_no_host_is_400(url: str) -> None:
    where = httpx.URL(url)
    with socket.create_connection((where.host, where.port or 80), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
    assert answer.startswith("HTTP/1.1 400 ")
    assert json.loads(answer.partition("\r\n\r\n")[2])["status"] == 400
