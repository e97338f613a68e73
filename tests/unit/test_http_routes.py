"""What each route answers, with the client's functions replaced by ones that answer as told."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from flask.testing import FlaskClient
from structlog.testing import capture_logs
from structlog.typing import EventDict
from werkzeug.test import TestResponse

from textgen import client
from textgen.errors import (
    BrokerUnavailable,
    DuplicateTask,
    StoreBroken,
    StoreUnavailable,
    TaskFinished,
    TaskUnfinished,
    UnknownTask,
)
from textgen.http import create_app, health
from textgen.lifecycle import Record, Status, new_task_id
from textgen.selection import Page, Selection
from textgen.store.waiting import Outlook

ID = new_task_id()
CURSOR = f"1762075800000-{ID}"
CANARY = "canary-7f3a"
CANARY_BODY = {"prompt": CANARY}


@pytest.fixture(scope="module")
def web() -> FlaskClient:
    return create_app().test_client()


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`tell(name, outcome)` makes that function of the client return or raise it; gives its calls."""

    def replace(name: str, outcome: Any) -> list[tuple[Any, ...]]:
        calls = []

        def told(*args: Any, **named: Any) -> Any:
            calls.append((*args, *named.values()))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(client, name, told)
        return calls

    return replace


def assert_problem(answer: TestResponse, status: int, kind: str = "about:blank") -> dict[str, Any]:
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    shown: dict[str, Any] = answer.json
    assert (shown["status"], shown["type"].removeprefix("urn:textgen:problem:")) == (status, kind)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Request-Id"]
    return shown


def test_a_submit_answers_202_with_the_record_and_where_to_read_it(web: FlaskClient, tell: Any) -> None:
    record = Record(ID, prompt="Hello", created_at="2026-11-02T09:30:00.000Z")
    calls = tell("submit", record)

    answer = web.post("/v1/tasks", json={"prompt": "Hello", "priority": 9})

    assert answer.status_code == 202
    assert answer.json == {**record.as_dict(), "queue_position": None, "eta_s": None}
    assert answer.headers["Location"] == f"/v1/tasks/{ID}"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Cache-Control"] == "no-store"
    assert [(request.prompt, request.priority) for request, _ in calls] == [("Hello", 9)]


@pytest.mark.parametrize("status", Status)
def test_a_read_answers_the_record_and_when_to_come_back(web: FlaskClient, tell: Any, status: Status) -> None:
    tell("get", Record(ID, status))
    tell("outlooks", {ID: Outlook(3, 4.5)})
    answer = web.get(f"/v1/tasks/{ID}")

    outlook = {"queue_position": 3, "eta_s": 4.5} if status is Status.PENDING else {}
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.json == Record(ID, status).as_dict() | outlook
    assert ("Retry-After" in answer.headers) is not status.is_terminal


def test_an_outlook_that_cannot_be_had_is_null(web: FlaskClient, tell: Any) -> None:
    tell("get", Record(ID))
    tell("outlooks", StoreUnavailable("gone"))
    answer: Any = web.get(f"/v1/tasks/{ID}").json
    assert (answer["queue_position"], answer["eta_s"]) == (None, None)


def test_a_list_answers_a_page_of_what_was_asked_for(web: FlaskClient, tell: Any) -> None:
    record = Record(ID, Status.COMPLETED, result="text")
    calls = tell("list_page", Page([record], "abc"))
    query = f"status=COMPLETED&engine=mock&created_after=2026-11-02T09:30:00Z&limit=7&cursor={CURSOR}"

    answer = web.get(f"/v1/tasks?{query}&metadata.user=ann&metadata.a.b=7")

    assert answer.json == {"data": [record.as_dict()], "next_cursor": "abc"}
    since = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
    wanted = Selection(Status.COMPLETED, "mock", since, {"user": "ann", "a.b": "7"})
    assert calls == [(wanted, 7, CURSOR, "default")]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=DONE", "status"),
        ("status=", "status"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("created_after=yesterday", "created_after"),
        ("created_after=1700000000", "created_after"),
        ("created_after=2026-11-02", "created_after"),
        ("created_after=2026-11-02T09:30:00", "created_after"),
        ("cursor=nonsense", "cursor"),
        ("metadata.user=ann", "metadata.user"),
        ("metadata.=ann", "metadata."),
        ("metadata=ann", "metadata"),
        ("sort=asc", "sort"),
        ("model_config=x", "model_config"),
    ],
)
def test_a_list_refuses_what_it_does_not_know_and_names_it(web: FlaskClient, query: str, field: str) -> None:
    shown = assert_problem(web.get(f"/v1/tasks?{query}"), 422, "invalid-request")
    assert [error["field"] for error in shown["errors"]] == [field]


def test_a_delete_answers_204(web: FlaskClient, tell: Any) -> None:
    calls = tell("delete", None)
    answer = web.delete(f"/v1/tasks/{ID}")
    assert (answer.status_code, answer.data) == (204, b"")
    assert calls == [(ID, "default")]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (TaskUnfinished("runs"), 409, "task-unfinished"),
        (UnknownTask("none"), 404, "unknown-task"),
        (StoreUnavailable("gone"), 503, "store-unavailable"),
        (StoreBroken("ERR of a script"), 500, "about:blank"),
    ],
)
def test_a_delete_that_cannot_be(
    web: FlaskClient, tell: Any, error: Exception, status: int, kind: str
) -> None:
    tell("delete", error)
    assert_problem(web.delete(f"/v1/tasks/{ID}"), status, kind)


def test_a_waiting_read_waits_through_the_client(web: FlaskClient, tell: Any) -> None:
    calls = tell("wait", Record(ID, Status.COMPLETED, result="text"))

    assert web.get(f"/v1/tasks/{ID}?wait_s=2.5").status_code == 200
    assert calls == [(ID, 2.5, "default")]


@pytest.mark.parametrize(
    "query", ["wait_s=-1", "wait_s=61", "wait_s=nan", "wait_s=inf", "wait_s=", "wait_s=abc", "wait=1"]
)
def test_a_wrong_query_is_422_and_asks_nobody(web: FlaskClient, tell: Any, query: str) -> None:
    calls = tell("get", Record(ID)) + tell("wait", Record(ID))
    shown = assert_problem(web.get(f"/v1/tasks/{ID}?{query}"), 422, "invalid-request")

    assert [error["field"] for error in shown["errors"]] == [query.split("=")[0]]
    assert calls == []


def test_no_route_takes_a_query_it_does_not_know(web: FlaskClient) -> None:
    for method, path in documented(web):
        answer = web.open(path.format(task_id=ID), method=method, query_string={"surprise": CANARY})
        assert_problem(answer, 422, "invalid-request")
        assert CANARY not in answer.get_data(as_text=True)


@pytest.mark.parametrize("name", ["status", "metadata.user", "limit"])
def test_a_parameter_given_twice_is_422_and_asks_nobody(web: FlaskClient, tell: Any, name: str) -> None:
    calls = tell("list_page", UnknownTask())
    problem = assert_problem(web.get(f"/v1/tasks?{name}=1&{name}=2"), 422, "invalid-request")
    assert problem["errors"] == [{"field": name, "reason": "is given more than once"}]
    assert_problem(web.get("/v1/unknown?a=1&a=2"), 404)
    assert not calls


def test_cancelling_answers_the_record(web: FlaskClient, tell: Any) -> None:
    calls = tell("cancel", Record(ID, Status.CANCELLED))
    answer = web.post(f"/v1/tasks/{ID}/cancel")

    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["status"] == "CANCELLED"
    assert calls == [(ID, "default")]


def test_cancelling_what_has_ended_is_409(web: FlaskClient, tell: Any) -> None:
    tell("cancel", TaskFinished(CANARY))
    assert CANARY not in assert_problem(web.post(f"/v1/tasks/{ID}/cancel"), 409, "task-finished")["detail"]


def test_an_unknown_task_is_404_on_every_route(web: FlaskClient, tell: Any) -> None:
    for name in ("get", "wait", "cancel"):
        tell(name, UnknownTask(CANARY))
    for answer in (
        web.get(f"/v1/tasks/{ID}"),
        web.get(f"/v1/tasks/{ID}?wait_s=1"),
        web.post(f"/v1/tasks/{ID}/cancel"),
    ):
        assert_problem(answer, 404, "unknown-task")


@pytest.mark.parametrize(
    "written",
    [
        "x",
        ID.upper(),
        f"{{{ID}}}",
        ID.replace("-", ""),
        f"urn:uuid:{ID}",
        f"{ID}%0A",
        f"{ID}%00",
        "%ff",
        "*",
        "..%2f..%2fetc%2fpasswd",
        "../tasks",
        "%0d%0aX-Injected:%20yes",
        "00000000-0000-0000-0000-000000000000",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",  # a UUID, version 1
        "a" * 3000,
    ],
)
def test_a_malformed_id_is_404_without_a_question_to_the_store(web: FlaskClient, written: str) -> None:
    for answer in (
        web.get(f"/v1/tasks/{written}"),
        web.get(f"/v1/tasks/{written}?wait_s=1"),
        web.post(f"/v1/tasks/{written}/cancel"),
    ):
        assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
        assert "X-Injected" not in answer.headers


@pytest.mark.parametrize("path", ["/docs/x", "/v1", "/v1/tasks/", "//v1/tasks", "/v1/task", f"/v1/{CANARY}"])
def test_an_unknown_route_is_a_404_problem(web: FlaskClient, path: str) -> None:
    answer = web.get(path, base_url="http://localhost")
    assert_problem(answer, 404)
    assert CANARY not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/tasks", {"GET", "HEAD", "POST"}),
        ("DELETE", "/v1/tasks", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "/v1/tasks", {"GET", "HEAD", "POST"}),
        ("POST", f"/v1/tasks/{ID}", {"GET", "HEAD", "DELETE"}),
        ("PATCH", f"/v1/tasks/{ID}", {"GET", "HEAD", "DELETE"}),
        ("GET", f"/v1/tasks/{ID}/cancel", {"POST"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("BREW", "/readyz", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_405_and_names_the_right_ones(
    web: FlaskClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = web.open(path, method=method)
    assert_problem(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("error", "part"), [(BrokerUnavailable("gone"), "broker"), (StoreUnavailable("gone"), "store")]
)
def test_what_cannot_be_reached_is_503_and_named(
    web: FlaskClient, tell: Any, error: Exception, part: str
) -> None:
    for name in ("submit", "get", "cancel"):
        tell(name, error)
    for answer in (
        web.post("/v1/tasks", json=CANARY_BODY),
        web.get(f"/v1/tasks/{ID}"),
        web.post(f"/v1/tasks/{ID}/cancel"),
    ):
        shown = assert_problem(answer, 503, f"{part}-unavailable")
        assert part in shown["detail"]
        assert int(answer.headers["Retry-After"]) > 0


def test_an_id_used_twice_is_409(web: FlaskClient, tell: Any) -> None:
    tell("submit", DuplicateTask(ID))
    assert_problem(web.post("/v1/tasks", json=CANARY_BODY), 409, "duplicate-task")


def test_an_unforeseen_error_is_500_and_logged_without_what_it_says(web: FlaskClient, tell: Any) -> None:
    tell("submit", ValueError(CANARY))
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        answer = web.post("/v1/tasks", json=CANARY_BODY)

    assert_problem(answer, 500)
    assert "Traceback" not in answer.get_data(as_text=True)
    assert CANARY not in answer.get_data(as_text=True)
    failed = next(line for line in lines if line["event"] == "http.failed")
    assert failed["request_id"] == answer.headers["X-Request-Id"]
    assert failed["error"][0] == "ValueError"
    assert CANARY not in str(lines)


def test_alive_asks_nobody(web: FlaskClient, tell: Any) -> None:
    calls = tell("health", {})
    answer = web.get("/healthz")

    assert (answer.status_code, answer.json) == (200, {"status": "alive"})
    assert calls == []


@pytest.fixture
def nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "findings", health.Findings())


@pytest.mark.usefixtures("nothing_found")
def test_many_who_ask_at_once_are_told_what_one_look_found(web: FlaskClient, tell: Any) -> None:
    calls = tell("health", dict.fromkeys(("broker", "store", "worker")))
    assert [web.get("/readyz").status_code for _ in range(20)] == [200] * 20
    assert len(calls) == 1


@pytest.mark.usefixtures("nothing_found")
def test_ready_when_all_parts_are_there(web: FlaskClient, tell: Any) -> None:
    parts = dict.fromkeys(("broker", "store", "worker"))
    tell("health", parts)
    answer = web.get("/readyz")

    assert answer.status_code == 200
    assert answer.json == {"status": "ready", "parts": parts}


@pytest.mark.usefixtures("nothing_found")
def test_not_ready_says_which_part_is_down(web: FlaskClient, tell: Any) -> None:
    tell("health", {"broker": None, "store": None, "worker": "no worker answers"})
    answer = web.get("/readyz")

    shown = assert_problem(answer, 503, "not-ready")
    assert "worker" in shown["detail"]
    assert "broker" not in shown["detail"]
    assert shown["parts"]["worker"] == "no worker answers"
    assert answer.headers["Retry-After"]


def test_a_callers_request_id_comes_back_and_stands_in_the_log(web: FlaskClient, tell: Any) -> None:
    tell("get", Record(ID))
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        answer = web.get(f"/v1/tasks/{ID}", headers={"X-Request-Id": "order-17.a_B"})

    assert answer.headers["X-Request-Id"] == "order-17.a_B"
    assert answered(lines) | {"ms": 0} == {
        "event": "http.answered",
        "log_level": "info",
        "request_id": "order-17.a_B",
        "task_id": ID,
        "method": "GET",
        "route": "/v1/tasks/<task_id>",
        "status": 200,
        "ms": 0,
    }


@pytest.mark.parametrize("given", ["", "a b", "<script>", "é", "a" * 129, 'x"y', "a;b"])
def test_a_strange_request_id_is_replaced(web: FlaskClient, given: str) -> None:
    answer = web.get("/healthz", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])


def test_nothing_of_one_request_stands_in_the_log_lines_of_the_next(web: FlaskClient, tell: Any) -> None:
    tell("get", Record(ID))
    web.get(f"/v1/tasks/{ID}", headers={"X-Request-Id": "first"})
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        web.get(f"/{CANARY}")

    assert "task_id" not in answered(lines)
    assert answered(lines)["request_id"] != "first"
    assert CANARY not in str(lines)


def answered(lines: list[EventDict]) -> dict[str, Any]:
    (line,) = [line for line in lines if line["event"] == "http.answered"]
    return dict(line)


def documented(web: FlaskClient) -> list[tuple[str, str]]:
    document: dict[str, Any] = web.get("/openapi.json").json
    return [(method.upper(), path) for path, operations in document["paths"].items() for method in operations]
