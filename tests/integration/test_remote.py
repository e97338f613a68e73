"""The HTTP client against the real web app, with RabbitMQ, Redis and a worker behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.environment import Environment
from tests.processes import wait_until
from textgen.client import TextGenerationClient
from textgen.errors import InvalidRequest, TaskFinished, Unavailable, UnknownTask, WaitTimeout
from textgen.lifecycle import Status, new_task_id
from textgen.remote import RemoteClient
from textgen.requests import parse_request

#: Metadata that makes the mock engine take a minute.
SLOW = {"mock": {"delay_s": 0.1, "tokens": 600}}


@pytest.fixture(scope="module")
def stack(module_stack_env: Callable[..., Environment]) -> Environment:
    return module_stack_env("rabbitmq")


@pytest.fixture(scope="module")
def client(
    stack: Environment, module_start_worker: Callable[..., Any], module_start_web: Callable[..., Any]
) -> Iterator[RemoteClient]:
    module_start_worker(stack, "threads", 8).wait_ready()
    with RemoteClient(module_start_web(stack).url) as made:
        yield made


def test_a_submitted_task_is_waited_for_and_read(client: RemoteClient) -> None:
    accepted = client.submit(parse_request({"prompt": "Hello", "engine": "mock", "metadata": {"k": [None]}}))

    ended = client.wait(accepted.task_id, 30)

    assert accepted.status is Status.PENDING
    assert ended.status is Status.COMPLETED
    assert ended.result
    assert ended.metadata == {"k": [None]}
    assert client.get(accepted.task_id) == ended


def test_a_wait_ends_when_time_is_up(client: RemoteClient) -> None:
    task_id = client.submit({"prompt": "Hello", "metadata": SLOW, "max_tokens": 1000}).task_id
    assert not client.wait(task_id, 0.3).status.is_terminal
    client.cancel(task_id)


def test_a_stream_tells_states_and_text_up_to_the_end(client: RemoteClient) -> None:
    metadata = {"mock": {"delay_s": 0.2, "tokens": 10}}
    task_id = client.submit({"prompt": "Hello", "metadata": metadata}).task_id

    events = list(client.stream(task_id))

    states = [event.data["status"] for event in events if event.type == "state"]
    text = "".join(event.data["text"] for event in events if event.type == "chunk")
    assert states == ["PENDING", "PROCESSING", "COMPLETED"]
    assert text == client.get(task_id).result
    assert list(client.stream(task_id, after=events[3].id)) == events[4:]


def test_the_class_for_scripts_waits_and_streams_over_http(client: RemoteClient) -> None:
    with TextGenerationClient(str(client._http.base_url)) as script:
        task_id = script.create_task("Hello", metadata={"mock": {"delay_s": 0.05, "tokens": 10}})
        text = "".join(event.data["text"] for event in script.stream(task_id) if event.type == "chunk")
        record = script.wait(task_id)

        assert text == record["result"]
        with pytest.raises(InvalidRequest, match="Last-Event-ID"):
            list(script.stream(task_id, after="nonsense"))
        slow = script.create_task("Hello", metadata=SLOW, max_tokens=1000)
        with pytest.raises(WaitTimeout, match=slow):
            script.wait(slow, timeout_s=0.2)
    client.cancel(slow)


def test_a_cancelled_task_keeps_its_text_and_ends_its_stream(client: RemoteClient) -> None:
    task_id = client.submit({"prompt": "Hello", "metadata": SLOW, "max_tokens": 1000}).task_id
    events: list[Any] = []
    follower = threading.Thread(target=lambda: events.extend(client.stream(task_id)))
    follower.start()
    wait_until(lambda: client.get(task_id).status is Status.PROCESSING, 20, "it runs")

    cancelled = client.cancel(task_id)
    follower.join(timeout=10)

    assert cancelled.status is Status.CANCELLED
    assert client.cancel(task_id) == cancelled
    assert events[-1].data["status"] == "CANCELLED"


def test_a_completed_task_cannot_be_cancelled(client: RemoteClient) -> None:
    task_id = client.submit({"prompt": "Hello"}).task_id
    client.wait(task_id, 30)
    with pytest.raises(TaskFinished):
        client.cancel(task_id)


@pytest.mark.parametrize("call", ["get", "cancel", "stream"])
def test_an_unknown_task_is_an_error_of_its_own(client: RemoteClient, call: str) -> None:
    task_id = new_task_id()
    with pytest.raises(UnknownTask, match=task_id):
        list(client.stream(task_id)) if call == "stream" else getattr(client, call)(task_id)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "prompt"),
        ({"prompt": "x", "engine": "nonsense"}, "engine"),
        ({"prompt": "x", "top_p": float("nan")}, "(?i)nan|number|json"),
        ({"prompt": "x\udc80"}, "surrogate"),
        ({"prompt": "x" * 2_000_000}, "(?i)large|bytes|size"),
    ],
)
def test_what_the_server_refuses_is_invalid(
    client: RemoteClient, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        client.submit(fields)


def test_a_server_without_its_broker_says_when_to_come_back(
    stack: Environment, start_web: Callable[..., Any]
) -> None:
    web = start_web(stack | {"CELERY_BROKER_URL": "amqp://guest:guest@127.0.0.1:1//"})
    with RemoteClient(web.url, patience_s=0) as client, pytest.raises(Unavailable, match="broker") as caught:
        client.submit({"prompt": "Hello"})
    assert caught.value.retry_after_s >= 1


def test_a_server_that_has_gone_is_unavailable(stack: Environment, start_web: Callable[..., Any]) -> None:
    web = start_web(stack)
    with RemoteClient(web.url) as client:
        web.stop()
        with pytest.raises(Unavailable, match="cannot be reached"):
            client.submit({"prompt": "Hello"})


def test_a_stream_outlives_its_server(
    stack: Environment, client: RemoteClient, start_web: Callable[..., Any]
) -> None:
    web = start_web(stack)
    task_id = client.submit({"prompt": "Hello", "metadata": {"mock": {"delay_s": 0.1, "tokens": 40}}}).task_id
    with RemoteClient(web.url) as follower:
        events = follower.stream(task_id)
        found = [next(events) for _ in range(4)]
        web.kill()
        web.start()
        found += events

    assert found == list(client.stream(task_id))
    text = "".join(event.data["text"] for event in found if event.type == "chunk")
    assert text == client.get(task_id).result
