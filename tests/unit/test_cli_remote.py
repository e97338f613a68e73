"""What the HTTP client makes of answers that a server gives, and of those that something else gives."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from textgen import remote
from textgen.client import TextGenerationClient
from textgen.errors import (
    BrokerUnavailable,
    BudgetExhausted,
    ConfigurationError,
    InvalidRequest,
    LimitExceeded,
    QueueFull,
    StoreUnavailable,
    SubmitInFlight,
    TaskFinished,
    TextgenError,
    Unavailable,
    UnknownTask,
)
from textgen.lifecycle import Event, Record, Status, new_task_id
from textgen.remote import RemoteClient
from textgen.store.ledger import Used

Handler = Callable[[httpx.Request], httpx.Response]
ID = new_task_id()


def client_of(handler: Handler, patience_s: float = 0) -> RemoteClient:
    return RemoteClient("http://server:8000/base/", None, httpx.MockTransport(handler), patience_s)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the client would have made."""
    made: list[float] = []
    monkeypatch.setattr(remote, "_pause", made.append)
    return made


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


@pytest.mark.parametrize("status", [429, 503])
def test_a_submit_comes_back_when_it_is_told_to_with_the_same_key(status, pauses):
    keys = []

    def handle(request):
        keys.append(request.headers["Idempotency-Key"])
        return httpx.Response(202, json=Record(ID).as_dict()) if len(keys) == 3 else problem(status)

    assert client_of(handle, 15).submit({"prompt": "x"}) == Record(ID)
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert pauses == [7, 7]


def test_each_submit_has_a_key_of_its_own_or_the_one_given():
    keys = []

    def handle(request):
        keys.append(request.headers["Idempotency-Key"])
        return httpx.Response(202, json=Record(ID).as_dict())

    client = client_of(handle)
    client.submit({"prompt": "x"})
    client.submit({"prompt": "x"})
    client.submit({"prompt": "x"}, idempotency_key="mine")
    assert len(set(keys)) == 3
    assert keys[-1] == "mine"


def test_what_would_last_longer_than_patience_is_raised_at_once(pauses):
    calls = []

    def handle(request):
        calls.append(request)
        return problem(503)

    with pytest.raises(Unavailable, match="so it is"):
        client_of(handle, 6).get(ID)
    assert (len(calls), pauses) == (1, [])


@pytest.mark.parametrize("response", [httpx.Response(500), problem(404), problem(422), httpx.Response(503)])
def test_what_no_time_was_named_for_is_not_repeated(response, pauses):
    calls = []

    def handle(request):
        calls.append(request)
        return response

    with pytest.raises(TextgenError):
        client_of(handle, 60).get(ID)
    assert (len(calls), pauses) == (1, [])


def test_a_broken_connection_is_tried_again_and_then_raised(pauses):
    calls = []

    def handle(request):
        calls.append(request)
        raise httpx.ConnectError("refused")

    with pytest.raises(Unavailable, match="cannot be reached"):
        client_of(handle, 60).get(ID)
    assert (len(calls), pauses) == (3, [0.25, 1.0])


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


def test_clearing_the_cache_says_how_much_there_was():
    seen = []

    def handle(request):
        seen.append((request.method, str(request.url)))
        return httpx.Response(200, json={"cleared": 3})

    assert client_of(handle).clear_cache() == 3
    assert seen == [("DELETE", "http://server:8000/base/v1/cache")]


def test_409_is_a_finished_task():
    with pytest.raises(TaskFinished, match="so it is"):
        answering(problem(409)).cancel(ID)


def test_503_says_when_to_come_back():
    with pytest.raises(Unavailable, match="so it is") as caught:
        answering(problem(503)).get(ID)
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (402, "budget-exhausted", BudgetExhausted),
        (429, "limit-exceeded", LimitExceeded),
        (503, "queue-full", QueueFull),
        (503, "broker-unavailable", BrokerUnavailable),
        (503, "store-unavailable", StoreUnavailable),
        (409, "submit-in-flight", SubmitInFlight),
    ],
)
def test_what_kept_a_submit_out_is_the_error_that_it_is_in_python(status, kind, error):
    refused = problem(status, type=f"urn:textgen:problem:{kind}", limit="tokens_per_day")
    with pytest.raises(Unavailable, match="so it is") as caught:
        answering(refused).submit({"prompt": "x"})
    assert (type(caught.value), caught.value.retry_after_s) == (error, 7)
    assert getattr(caught.value, "limit", "tokens_per_day") == "tokens_per_day"


def test_a_spent_budget_is_not_asked_for_again(pauses):
    calls = []

    def handle(request):
        calls.append(request)
        return problem(402, type="urn:textgen:problem:budget-exhausted")

    with pytest.raises(BudgetExhausted):
        client_of(handle, 60).submit({"prompt": "x"})
    assert (len(calls), pauses) == (1, [])


def test_a_server_validates_what_the_class_for_scripts_submits(monkeypatch):
    seen = []

    def handle(request):
        seen.append(json.loads(request.content))
        return httpx.Response(202, json=Record(ID).as_dict())

    with TextGenerationClient("http://server:8000") as client:
        monkeypatch.setattr(client, "_way", client_of(handle))
        assert client.create_task("Hello", engine="of the server", max_tokens=10**9) == ID
    assert seen == [{"prompt": "Hello", "metadata": {}, "engine": "of the server", "max_tokens": 10**9}]


@pytest.mark.parametrize("key", ["", "é", "a\nb", "k" * 256])
def test_an_idempotency_key_that_is_none_is_named_without_asking(key):
    with pytest.raises(InvalidRequest, match="idempotency_key"):
        raising(AssertionError("was called")).submit({"prompt": "x"}, idempotency_key=key)


def test_what_is_no_json_is_refused_without_asking():
    with pytest.raises(InvalidRequest, match="plain JSON"):
        raising(AssertionError("was called")).submit({"prompt": "x", "metadata": {"when": object()}})


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


@pytest.mark.parametrize("cost", [None, 0.0138])
def test_usage_is_read_as_it_is_without_a_server(cost):
    row = Used("2026-11-02", "", 12, 340, 2210, None if cost is None else 13_800_000)
    assert answering(httpx.Response(200, json={"data": [row.as_dict()]})).usage() == [row]
    with pytest.raises(Unavailable, match="not as a textgen server"):
        answering(httpx.Response(200, json={"data": [{"day": "2026-11-02"}]})).usage()


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


def frame(event_id: str, kind: str, **data: object) -> str:
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"


def sse(*frames: str) -> httpx.Response:
    return httpx.Response(
        200, headers={"Content-Type": "text/event-stream"}, text="".join(("retry: 1000\n\n", *frames))
    )


FRAMES = (
    frame("1-0", "state", status="PENDING", at="then", attempt=0),
    ":\n\n",
    frame("3-1", "chunk", text="\u2028a\x85", attempt=1),
    frame("4-1", "novelty", attempt=1),
    frame("5-1", "reset", reason="retry", attempt=1),
    frame("end", "end", **Record(ID, Status.COMPLETED).as_dict()),
)
EVENTS = [
    Event("1-0", "state", 0, {"status": "PENDING", "at": "then"}),
    Event("3-1", "chunk", 1, {"text": "\u2028a\x85"}),
    Event("5-1", "reset", 1, {"reason": "retry"}),
]


def test_stream_tells_the_events_that_are_known():
    assert list(answering(sse(*FRAMES)).stream(ID)) == EVENTS


def test_a_stream_that_breaks_off_is_resumed_behind_the_last_event(pauses):
    answers = [
        sse(*FRAMES[:1]),
        problem(503),
        sse(*FRAMES[1:3]),
        sse(FRAMES[3], FRAMES[4][:-5]),  # in the middle of an event
        httpx.ConnectError("refused"),
        sse(*FRAMES[4:]),
    ]
    seen = []

    def handle(request):
        seen.append(request.headers.get("Last-Event-ID"))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert list(client_of(handle, 15).stream(ID)) == EVENTS
    assert seen == [None, "1-0", "1-0", "3-1", "4-1", "4-1"]


def test_a_stream_whose_end_was_seen_is_over():
    def handle(request):
        assert request.headers["Last-Event-ID"] == "end"
        return httpx.Response(204)

    assert list(client_of(handle).stream(ID, "end")) == []


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (problem(404), UnknownTask),
        (problem(422), InvalidRequest),
        (problem(503), Unavailable),
        (httpx.Response(200, html="<h1>welcome</h1>"), Unavailable),
        (sse("event: chunk\ndata: {\n\n"), Unavailable),
        (sse("event: chunk\ndata: [1]\n\n"), Unavailable),
    ],
)
def test_what_is_no_stream_is_an_error(response, error):
    with pytest.raises(error):
        list(answering(response).stream(ID))


def test_a_stream_of_a_server_that_stays_away_ends_with_the_patience(pauses):
    def handle(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(Unavailable, match="cannot be reached"):
        list(client_of(handle, 0.5).stream(ID))
