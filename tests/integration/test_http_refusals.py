"""What HTTP refuses leaves nothing behind: bad requests, and good ones while a server is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import kombu
import pytest
import redis
from amqp import NotFound

from tests.environment import Environment
from tests.processes import free_port, wait_until
from tests.programs import WebProcess
from textgen.lifecycle import new_task_id

#: Seconds in which every refusal must come.
BOUND_S = 10.0

StackEnv = Callable[..., Environment]
StartWeb = Callable[..., WebProcess]


def assert_unavailable(answer: httpx.Response, part: str) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:textgen:problem:{part}-unavailable"
    assert part in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.elapsed.total_seconds() < BOUND_S


def submit(web: WebProcess) -> httpx.Response:
    return httpx.post(f"{web.url}/v1/tasks", json={"prompt": "Hello"}, timeout=30)


def messages(env: Environment) -> int:
    """Messages waiting in the two lanes now; the broker's own list of queues lags by seconds."""
    total = 0
    with kombu.Connection(env["CELERY_BROKER_URL"]) as connection:
        for name in ("text_generation_tasks", "text_generation_tasks.bulk"):
            with suppress(NotFound), connection.channel() as channel:
                total += channel.queue_declare(name, passive=True).message_count
    return total


def test_bad_requests_leave_no_key_and_no_message(stack_env: StackEnv, start_web: StartWeb) -> None:
    env = stack_env("rabbitmq")
    url = start_web(env).url + "/v1/tasks"
    as_json = {"Content-Type": "application/json"}
    bodies = [b"", b"{", b"[]", b"5", b"{}", b'{"prompt": "\xff"}', b'{"prompt": "a", "prompt": "b"}']
    bodies += [b"[" * 100_000, b'{"prompt": "x", "max_tokens": 1e999}', b'{"prompt": "\\ud800"}']
    bodies += [b'{"prompt": "' + b"x" * 2_000_000 + b'"}', b'{"prompt": "x", "unknown": 1}']

    answers = [httpx.post(url, content=body, headers=as_json) for body in bodies]
    answers.append(httpx.post(url, content=iter([b'{"prompt": "', b"x" * 2_000_000]), headers=as_json))
    answers.append(httpx.post(url, content=b'{"prompt": "x"}'))

    assert [answer.status_code for answer in answers] == [
        *(400, 400, 422, 422, 422, 400, 400),
        *(400, 422, 422),
        *(413, 422),
        *(413, 415),
    ]
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/problem+json"}
    assert redis.Redis.from_url(env["REDIS_URL"]).keys("*") == []
    assert messages(env) == 0


def test_without_a_broker_a_submit_is_503_and_the_task_never_shows(
    stack_env: StackEnv, start_web: StartWeb
) -> None:
    env = stack_env("rabbitmq", CELERY_BROKER_URL=f"amqp://guest:guest@127.0.0.1:{free_port()}//")
    web = start_web(env)

    assert_unavailable(submit(web), "broker")
    for key in redis.Redis.from_url(env["REDIS_URL"], decode_responses=True).scan_iter("task:*"):
        read = httpx.get(f"{web.url}/v1/tasks/{key.removeprefix('task:')}").json()
        assert read.get("status") in {404, "CANCELLED"}


@pytest.mark.parametrize("warm", [False, True])
def test_a_broker_that_hangs_makes_submits_503_and_they_work_again_after(
    stack_env: StackEnv, start_web: StartWeb, rabbitmq: Any, warm: bool
) -> None:
    web = start_web(stack_env("rabbitmq"))
    if warm:
        assert submit(web).status_code == 202
    with rabbitmq.process.paused():
        assert_unavailable(submit(web), "broker")
        assert httpx.get(f"{web.url}/healthz").is_success

    wait_until(lambda: submit(web).status_code == 202, 30, "submits work again")


def test_without_a_store_everything_is_503_and_nothing_is_queued(
    stack_env: StackEnv, start_web: StartWeb
) -> None:
    env = stack_env("rabbitmq", REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    web = start_web(env)
    task = f"{web.url}/v1/tasks/{new_task_id()}"

    assert_unavailable(submit(web), "store")
    assert_unavailable(httpx.get(task, timeout=30), "store")
    assert_unavailable(httpx.get(f"{task}?wait_s=5", timeout=30), "store")
    assert_unavailable(httpx.post(f"{task}/cancel", timeout=30), "store")
    assert messages(env) == 0


def test_a_store_that_hangs_makes_submits_503_and_they_work_again_after(
    stack_env: StackEnv, start_web: StartWeb, redis_server: Any
) -> None:
    env = stack_env("rabbitmq")
    web = start_web(env)
    assert submit(web).status_code == 202
    with redis_server.process.paused():
        assert_unavailable(submit(web), "store")
        assert messages(env) == 1

    wait_until(lambda: submit(web).status_code == 202, 30, "submits work again")


def test_readiness_names_what_is_down_in_time(stack_env: StackEnv, start_web: StartWeb) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    web = start_web(
        stack_env("rabbitmq", CELERY_BROKER_URL=f"amqp://{nowhere}//", REDIS_URL=f"redis://{nowhere}/0")
    )
    began = time.monotonic()
    answer = httpx.get(f"{web.url}/readyz", timeout=30)

    assert time.monotonic() - began < BOUND_S
    assert answer.status_code == 503
    assert all(answer.json()["parts"].values())
    assert {"broker", "store", "worker"} == answer.json()["parts"].keys()
