"""The API's description: valid where it refers, complete, and true to the models that validate."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import jsonschema
import pytest
from flask import Flask

from textgen.http import create_app
from textgen.http.operations import EXAMPLE_REQUEST, example_record
from textgen.http.task_schemas import Task
from textgen.lifecycle import Failure, Record, Status, Usage, new_task_id
from textgen.requests import GenerationRequest, parse_request


@pytest.fixture(scope="module")
def app() -> Flask:
    return create_app()


@pytest.fixture(scope="module")
def document(app: Flask) -> dict[str, Any]:
    shown: dict[str, Any] = app.test_client().get("/openapi.json").json
    return shown


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"


def test_every_route_is_described_and_nothing_else(app: Flask, document: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith("docs.")  # pages for people
        for method in (rule.methods or set()) - {"HEAD"}
    }
    assert {(path, method) for path, item in document["paths"].items() for method in item} == routes


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert names <= document["components"]["schemas"].keys()
    assert json.dumps(document).count('"$ref"') == json.dumps(document).count('"#/components/schemas/')


def test_every_problem_is_problem_json(document: dict[str, Any]) -> None:
    for operation in operations(document):
        for status, response in operation["responses"].items():
            kinds = response.get("content", {}).keys()
            if status >= "4":
                assert kinds == {"application/problem+json"}
            else:
                assert kinds <= {"application/json", "text/event-stream", "text/plain"}
                assert bool(kinds) is (status != "204")


def test_every_answer_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    for operation in operations(document):
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                assert content["example"]
                if "schema" in content:
                    validate(content["example"], content["schema"], document)


def test_the_webhook_is_described_by_an_example_that_fits(document: dict[str, Any]) -> None:
    content = document["webhooks"]["task"]["post"]["requestBody"]["content"]["application/json"]
    validate(content["example"], content["schema"], document)


def test_the_examples_request_is_valid() -> None:
    assert parse_request(EXAMPLE_REQUEST)


def test_the_described_body_has_the_fields_that_are_validated(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/tasks"]["post"]["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/GenerationRequest"}
    described = document["components"]["schemas"]["GenerationRequest"]
    assert described["properties"].keys() == GenerationRequest.model_fields.keys()
    assert described["additionalProperties"] is False


def test_the_described_task_has_the_fields_of_a_record_in_their_order() -> None:
    outlook = ["queue_position", "eta_s"]
    assert list(Task.model_fields) == [field.name for field in fields(Record)] + outlook


@pytest.mark.parametrize("status", Status)
def test_every_record_fits_the_description(document: dict[str, Any], status: Status) -> None:
    full = Record(
        new_task_id(),
        status,
        messages=[{"role": "user", "content": "Hello"}],
        params=parse_request({"prompt": "x", "stop": "y", "temperature": 0.5}).params,
        metadata={"a": [1, None]},
        error=Failure("deadline", "It did not end in time."),
        usage=Usage(1, 2, 0.5),
    )
    for record in (full, Record(new_task_id(), status, prompt="x")):
        validate(record.as_dict(), {"$ref": "#/components/schemas/Task"}, document)
    Task.model_validate(example_record(status))


def validate(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> None:
    whole = schema | {"components": document["components"]}
    jsonschema.validate(value, whole, cls=jsonschema.Draft202012Validator)
