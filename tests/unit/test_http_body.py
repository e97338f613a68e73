"""Bad bodies of a submit: each gets the problem wanted, none reaches the queue or is repeated."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from textgen import client
from textgen.http import create_app
from textgen.lifecycle import Record, new_task_id
from textgen.requests import GenerationRequest
from textgen.settings import get_settings

#: Stands in every prompt and must not come back.
CANARY = "canary-7f3a"

Submit = Callable[..., TestResponse]


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[GenerationRequest]:
    """What reached `client.submit`, which answers as the real one does."""
    calls: list[GenerationRequest] = []

    def submit(request: GenerationRequest, **_: object) -> Record:
        calls.append(request)
        return Record(new_task_id(), prompt=request.prompt)

    monkeypatch.setattr(client, "submit", submit)
    return calls


@pytest.fixture(scope="module")
def web() -> FlaskClient:
    return create_app().test_client()


@pytest.fixture
def submit(web: FlaskClient, submitted: list[GenerationRequest]) -> Submit:
    def post(
        body: str | bytes, content_type: str | None = "application/json", **kwargs: object
    ) -> TestResponse:
        return web.post("/v1/tasks", data=body, content_type=content_type, **kwargs)

    return post


def assert_problem(answer: TestResponse, status: int) -> dict[str, object]:
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    shown: dict[str, object] = answer.json
    assert shown["status"] == status
    assert shown.keys() >= {"type", "title", "detail"}
    text = answer.get_data(as_text=True)
    assert CANARY not in text
    assert "Traceback" not in text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    return shown


def with_prompt(rest: str) -> str:
    return f'{{"prompt": "{CANARY}", {rest}}}'


NOT_JSON = {
    "empty": "",
    "blank": " \n",
    "cut off": with_prompt('"max_tokens": '),
    "something behind": f'{{"prompt": "{CANARY}"}} x',
    "single quotes": f"{{'prompt': '{CANARY}'}}",
    "control character": f'{{"prompt": "{CANARY}\x07"}}',
    "latin-1": f'{{"prompt": "{CANARY} é"}}'.encode("latin-1"),
    "UTF-16": f'{{"prompt": "{CANARY}"}}'.encode("utf-16"),
    "UTF-16 without a mark": f'{{"prompt": "{CANARY}"}}'.encode("utf-16-le"),
    "5000 digits": with_prompt(f'"max_tokens": {"9" * 5000}'),
    "a key twice": f'{{"prompt": "{CANARY}", "prompt": "{CANARY}"}}',
    "a key twice, deep": with_prompt('"metadata": {"a": [{"b": 1, "b": 1}]}'),
    "nested 100,000 levels": "[" * 100_000,
    "nested 100,000 objects": '{"a":' * 100_000,
    "a value nested 100,000 levels": f'{{"prompt": {"[" * 100_000}{"]" * 100_000}}}',
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_a_body_that_is_not_json_is_400(
    submit: Submit, submitted: list[GenerationRequest], body: str | bytes
) -> None:
    assert_problem(submit(body), 400)
    assert submitted == []


INVALID = {
    "list": ("[]", "body"),
    "string": (f'"{CANARY}"', "body"),
    "string that holds a request": (json.dumps(json.dumps({"prompt": CANARY})), "body"),
    "null": ("null", "body"),
    "number": ("5", "body"),
    "NaN": ("NaN", "body"),
    "nothing in it": ("{}", "prompt"),
    "prompt null": ('{"prompt": null}', "prompt"),
    "prompt a number": ('{"prompt": 5}', "prompt"),
    "prompt a list": (f'{{"prompt": ["{CANARY}"]}}', "prompt"),
    "prompt an object": (f'{{"prompt": {{"a": "{CANARY}"}}}}', "prompt"),
    "prompt true": ('{"prompt": true}', "prompt"),
    "prompt empty": ('{"prompt": ""}', "prompt"),
    "prompt blank": (r'{"prompt": " \n\t"}', "prompt"),
    "prompt zero-width": (r'{"prompt": "\u200b\u200d\u0007"}', "prompt"),
    "prompt with a lone surrogate": (rf'{{"prompt": "{CANARY} \ud800"}}', "prompt"),
    "prompt with NUL": (rf'{{"prompt": "{CANARY} \u0000"}}', "prompt"),
    "prompt and messages": (with_prompt('"messages": [{"role": "user", "content": "x"}]'), "prompt"),
    "no messages": ('{"messages": []}', "messages"),
    "unknown role": (f'{{"messages": [{{"role": "{CANARY}", "content": "x"}}]}}', "messages.0.role"),
    "temperature NaN": (with_prompt('"temperature": NaN'), "temperature"),
    "temperature infinite": (with_prompt('"temperature": -Infinity'), "temperature"),
    "temperature 1e999": (with_prompt('"temperature": 1e999'), "temperature"),
    "temperature of 4000 digits": (with_prompt(f'"temperature": {"9" * 4000}'), "temperature"),
    "temperature too high": (with_prompt('"temperature": 2.1'), "temperature"),
    "temperature text": (with_prompt('"temperature": "1"'), "temperature"),
    "max_tokens 1e999": (with_prompt('"max_tokens": 1e999'), "max_tokens"),
    "max_tokens text": (with_prompt('"max_tokens": "abc"'), "max_tokens"),
    "max_tokens negative": (with_prompt('"max_tokens": -1'), "max_tokens"),
    "max_tokens 0": (with_prompt('"max_tokens": 0'), "max_tokens"),
    "max_tokens true": (with_prompt('"max_tokens": true'), "max_tokens"),
    "max_tokens of 4000 digits": (with_prompt(f'"max_tokens": {"9" * 4000}'), "max_tokens"),
    "seed a fraction": (with_prompt('"seed": 1.5'), "seed"),
    "too many stops": (with_prompt(f'"stop": {json.dumps(["x"] * 17)}'), "stop"),
    "stop too long": (with_prompt(f'"stop": ["{"x" * 201}"]'), "stop.0"),
    "priority 10": (with_prompt('"priority": 10'), "priority"),
    "unknown lane": (with_prompt(f'"lane": "{CANARY}"'), "lane"),
    "unknown engine": (with_prompt(f'"engine": "{CANARY}"'), "engine"),
    "unknown field": (with_prompt(f'"temprature": "{CANARY}"'), "temprature"),
    "metadata a list": (with_prompt('"metadata": []'), "metadata"),
    "metadata too large": (with_prompt(f'"metadata": {{"a": "{"x" * 20_000}"}}'), "metadata"),
    "metadata too deep": (with_prompt(f'"metadata": {{"a": {"[" * 900}{"]" * 900}}}'), "metadata"),
    "metadata with NaN": (with_prompt('"metadata": {"a": [NaN]}'), "metadata"),
    "metadata with a lone surrogate": (with_prompt(r'"metadata": {"\ud800": 1}'), "metadata"),
}


@pytest.mark.parametrize(("body", "field"), INVALID.values(), ids=INVALID.keys())
def test_json_that_is_no_request_is_422_and_names_the_field(
    submit: Submit, submitted: list[GenerationRequest], body: str, field: str
) -> None:
    errors = assert_problem(submit(body), 422)["errors"]

    assert isinstance(errors, list)
    assert field in [error["field"] for error in errors]
    assert all(error["reason"] for error in errors)
    assert submitted == []


def test_an_unknown_engine_is_told_which_ones_exist(submit: Submit) -> None:
    answer = submit(with_prompt('"engine": "oracle"'))
    assert "local, mock" in answer.get_data(as_text=True)


def test_a_prompt_over_the_limit_is_told_both_numbers(
    submit: Submit, submitted: list[GenerationRequest]
) -> None:
    limit = get_settings().max_prompt_chars
    shown = assert_problem(submit(json.dumps({"prompt": "x" * (limit + 1)})), 422)

    assert str(limit) in str(shown["errors"])
    assert str(limit + 1) in str(shown["errors"])
    assert submitted == []
    assert submit(json.dumps({"prompt": "x" * limit})).status_code == 202


def test_thousands_of_wrong_fields_get_a_short_answer(submit: Submit) -> None:
    body = {"prompt": CANARY} | {f"{'long' * 200}{number}": 1 for number in range(500)}
    answer = submit(json.dumps(body))

    assert_problem(answer, 422)
    assert len(answer.data) < 10_000


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/problem+json",
        "application/json; charset=latin-1",
    ],
)
def test_a_body_not_declared_as_json_is_415(
    submit: Submit, submitted: list[GenerationRequest], content_type: str | None
) -> None:
    assert_problem(submit(with_prompt('"seed": 1'), content_type), 415)
    assert submitted == []


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity, gzip"])
def test_a_compressed_body_is_415(submit: Submit, submitted: list[GenerationRequest], coding: str) -> None:
    assert_problem(submit(with_prompt('"seed": 1'), headers={"Content-Encoding": coding}), 415)
    assert submitted == []


class Chunked(io.RawIOBase):
    """A body of unknown length, as a server hands it over: at most 64 KiB at a time."""

    def __init__(self, body: bytes) -> None:
        self._rest = io.BytesIO(body)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        return self._rest.readinto(memoryview(buffer)[:65_536])


def post_chunked(web: FlaskClient, body: bytes) -> TestResponse:
    return web.post(
        "/v1/tasks",
        content_type="application/json",
        environ_overrides={
            "CONTENT_LENGTH": "",
            "wsgi.input": Chunked(body),
            "wsgi.input_terminated": True,
        },
    )


def padded(size: int) -> bytes:
    return b'{"prompt": "x"}'.ljust(size)


@pytest.mark.parametrize("over", [1, 2, 65_536, 1_000_000])
def test_a_body_over_the_limit_is_413_whether_its_length_is_announced_or_not(
    submit: Submit, web: FlaskClient, submitted: list[GenerationRequest], over: int
) -> None:
    limit = get_settings().max_body_bytes

    for answer in (submit(padded(limit + over)), post_chunked(web, padded(limit + over))):
        assert str(limit) in str(assert_problem(answer, 413)["detail"])
    assert submitted == []


def test_a_body_at_the_limit_is_accepted(submit: Submit, web: FlaskClient) -> None:
    limit = get_settings().max_body_bytes
    assert submit(padded(limit)).status_code == post_chunked(web, padded(limit)).status_code == 202


GOOD = {
    "byte-order mark": b'\xef\xbb\xbf{"prompt": "x"}',
    "right to left and emoji": '{"prompt": "שלום 👩‍👩‍👧"}'.encode(),
    "escaped emoji": rb'{"prompt": "\ud83d\ude00"}',
    "markup and format strings": b'{"prompt": "<script>alert(1)</script> {{7*7}} %s {0}"}',
    "line breaks and colours": rb'{"prompt": "a\r\nb \u001b[31m"}',
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD.keys())
def test_unusual_but_good_text_is_accepted_and_comes_back_as_it_was(submit: Submit, body: bytes) -> None:
    answer = submit(body, "application/json; charset=UTF-8", headers={"Accept": "text/html"})

    assert (answer.status_code, answer.content_type) == (202, "application/json")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.json is not None
    assert answer.json["prompt"] == json.loads(body)["prompt"]
