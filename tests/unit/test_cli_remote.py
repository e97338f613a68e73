"""What the HTTP client makes of answers that a server gives, and of those that something else gives."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from textgen.errors import ConfigurationError, InvalidRequest, TaskFinished, Unavailable, UnknownTask
from textgen.lifecycle import Record, Status, new_task_id
from textgen.remote import RemoteClient

Handler = Callable[[httpx.Request], httpx.Response]
ID = new_task_id()


def client_of(handler: Handler) -> RemoteClient:
    return RemoteClient("http://server:8000/base/", transport=httpx.MockTransport(handler))


def problem(status: int, **members: object) -> httpx.Response:
    headers = {"Content-Type": "application/problem+json; charset=utf-8", "Retry-After": "7"}
    return httpx.Response(status, headers=headers, json={"status": status, "detail": "so it is", **members})


def answering(response: httpx.Response) -> RemoteClient:
    return client_of(lambda request: response)


def raising(exc: Exception) -> RemoteClient:
    def handle(request: httpx.Request) -> httpx.Response:
        raise exc

    return client_of(handle)


def record(status: Status = Status.PENDING, **changes: object) -> httpx.Response:
    return httpx.Response(200, json=Record(ID, status).but(**changes).as_dict() | {"new_field": 1})


def test_submit_posts_the_fields_as_given():
    seen = []

    def handle(request):
        seen.append((request.method, str(request.url), json.loads(request.content)))
        return httpx.Response(202, json=Record(ID).as_dict())

    assert client_of(handle).submit({"prompt": "über \udc80", "engine": "of the server"}) == Record(ID)
    fields = {"prompt": "über \udc80", "engine": "of the server"}
    assert seen == [("POST", "http://server:8000/base/v1/tasks", fields)]


def test_nothing_is_submitted_twice():
    calls = []

    def handle(request):
        calls.append(request)
        return problem(503)

    with pytest.raises(Unavailable):
        client_of(handle).submit({"prompt": "x"})
    assert len(calls) == 1


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_refused_request_is_invalid(status):
    with pytest.raises(InvalidRequest, match="so it is"):
        answering(problem(status)).submit({})


def test_an_invalid_request_names_its_fields():
    errors = [{"field": "top_p", "reason": "too large"}, "noise"]
    with pytest.raises(InvalidRequest, match="top_p: too large") as caught:
        answering(problem(422, errors=errors)).submit({})
    assert caught.value.errors == ({"field": "top_p", "reason": "too large"},)


def test_404_is_an_unknown_task():
    with pytest.raises(UnknownTask, match=ID):
        answering(problem(404)).get(ID)


@pytest.mark.parametrize("task_id", ["", "..", "x" * 1000, ID.upper()])
def test_what_is_no_id_is_unknown_without_asking(task_id):
    with pytest.raises(UnknownTask):
        raising(AssertionError("was called")).get(task_id)


def test_409_is_a_finished_task():
    with pytest.raises(TaskFinished, match="so it is"):
        answering(problem(409)).cancel(ID)


def test_503_says_when_to_come_back():
    with pytest.raises(Unavailable, match="so it is") as caught:
        answering(problem(503)).get(ID)
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(404, html="<h1>nothing here</h1>"),
        httpx.Response(301, headers={"Location": "https://server/"}),
        httpx.Response(200, html="<h1>welcome</h1>"),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"status": "PENDING"}),
        httpx.Response(200, json={"task_id": ID, "status": "ODD"}),
        httpx.Response(500, headers={"Content-Type": "application/problem+json"}, content=b"{"),
        httpx.Response(502, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
    ],
)
def test_any_other_answer_is_not_a_server_of_ours(response):
    with pytest.raises(Unavailable, match="server"):
        answering(response).get(ID)


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.RemoteProtocolError("gone")])
def test_a_broken_connection_is_unavailable(error):
    with pytest.raises(Unavailable, match="cannot be reached"):
        raising(error).get(ID)


def test_a_submit_without_answer_says_that_its_fate_is_unknown():
    with pytest.raises(Unavailable, match="whether it accepted the task is not known"):
        raising(httpx.ReadTimeout("slow")).submit({"prompt": "x"})


@pytest.mark.parametrize("url", ["server:8000", "ftp://server", "http://", "nonsense"])
def test_an_url_that_is_none_names_the_setting(url):
    with pytest.raises(ConfigurationError, match="TEXTGEN_URL"):
        RemoteClient(url)


def test_what_servers_do_not_tell_is_a_clear_error():
    client = raising(AssertionError("was called"))
    with pytest.raises(ConfigurationError, match="unset TEXTGEN_URL"):
        client.overview()


def test_wait_ends_with_the_task_or_with_the_time():
    waits = []

    def handle(request):
        waits.append(float(request.url.params.get("wait_s", 0)))
        return record()

    assert client_of(handle).wait(ID, 0.5).status is Status.PENDING
    assert waits == [pytest.approx(0.5, abs=0.1)]
    assert answering(record(Status.FAILED)).wait(ID, 60).status is Status.FAILED


def test_stream_tells_each_change_once_and_the_text_before_the_end():
    answers = [
        record(),
        record(),
        record(Status.PROCESSING, attempt=1),
        record(Status.PENDING, attempt=1),
        record(Status.PROCESSING, attempt=2),
        record(Status.COMPLETED, attempt=2, result="text"),
    ]
    events = list(client_of(lambda request: answers.pop(0)).stream(ID))
    assert [(event.id, event.type, event.data.get("status") or event.data["text"]) for event in events] == [
        ("1-0", "state", "PENDING"),
        ("2-1", "state", "PROCESSING"),
        ("3-1", "state", "PENDING"),
        ("4-2", "state", "PROCESSING"),
        ("5-2", "chunk", "text"),
        ("6-2", "state", "COMPLETED"),
    ]
