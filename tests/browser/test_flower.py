"""Flower as people see it: tasks by name and state, and nothing of what was asked or answered."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests import environment
from tests.application import application
from tests.browser.flower import FlowerProcess
from tests.environment import Environment, new_folder
from tests.processes import wait_until
from tests.programs import WorkerProcess

NAME = "textgen.tasks.generate"
LOGIN = ("boss", "secret")
#: Seconds that anything may take here at the most.
PATIENCE_S = 30
#: What Flower asks its own server for when it fills the table of tasks.
TABLE = {"draw": "1", "start": "0", "length": "100", "search[value]": "", "order[0][column]": "0"}
TABLE |= {"order[0][dir]": "asc", "columns[0][data]": "name"}


@dataclass(frozen=True)
class Watched:
    """A Flower that has seen a task end in each way."""

    flower: FlowerProcess
    #: Task id → the state that Flower is to show.
    states: dict[str, str]
    #: What stands in prompts and results, and may be shown nowhere.
    secrets: tuple[str, ...]

    def assert_hidden(self, text: str) -> None:
        assert [secret for secret in self.secrets if secret in text] == []


def mock(**behaviour: Any) -> dict[str, Any]:
    return {"engine": "mock", "max_tokens": 1000, "metadata": {"mock": behaviour}}


@pytest.fixture(scope="module", params=["rabbitmq", "valkey"])
def env(request: pytest.FixtureRequest, module_stack_env: Callable[..., Environment]) -> Environment:
    return module_stack_env(request.param)


@pytest.fixture(scope="module")
def watched(env: Environment) -> Iterator[Watched]:
    """Without a login on loopback, its API open to all, as far as Flower lets anybody see anything."""
    with ExitStack() as stack:
        worker = stack.enter_context(WorkerProcess(env))
        flower = stack.enter_context(FlowerProcess(env | {"FLOWER_UNAUTHENTICATED_API": "true"}))
        worker.wait_ready()
        flower.wait_ready().wait_for_workers()
        with application(env):
            states, secrets = every_ending()
        wait_until(lambda: shown(flower) == states, PATIENCE_S, f"Flower shows {states}")
        yield Watched(flower, states, secrets)


def every_ending() -> tuple[dict[str, str], tuple[str, ...]]:
    """Have a task end in each way; returns what Flower is to show of each, and what of none."""
    from textgen import client
    from textgen.tasks import generate

    canary = f"canary{uuid.uuid4().hex}"

    def task(**behaviour: Any) -> str:
        return str(generate.delay(f"Say {canary}", **mock(**behaviour)).id)

    running = task(delay_s=0.05, tokens=900)
    states = {
        task(): "SUCCESS",
        task(failure="permanent"): "FAILURE",
        task(failure="raises", after=3): "FAILURE",
        task(failure="transient", times=1): "SUCCESS",
        running: "REVOKED",
    }
    chunks = (event for event in client.stream(running) if event is not None and event.type == "chunk")
    assert len(list(islice(chunks, 3))) == 3, "a partial text of several words"
    client.cancel(running)
    records = [client.wait(task_id, PATIENCE_S) for task_id in states]
    assert all(record.status.is_terminal for record in records)
    return states, (canary, *(record.result for record in records if record.result))


def rows(flower: FlowerProcess) -> list[dict[str, Any]]:
    return list(flower.post("/tasks/datatable", data=TABLE).json()["data"])


def shown(flower: FlowerProcess) -> dict[str, str]:
    return {row["uuid"]: row["state"] for row in rows(flower)}


def test_the_tasks_page_shows_names_and_states(watched: Watched, browser: Chrome) -> None:
    browser.get(f"{watched.flower.url}/tasks")

    def table() -> list[list[str]]:
        found = browser.find_elements(By.CSS_SELECTOR, "#tasks-table tbody tr")
        return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in found]

    wait_until(lambda: len(table()) == len(watched.states), PATIENCE_S, "the table has a row for each task")
    browser.save_screenshot(str(new_folder("screenshot") / "tasks.png"))
    name, task_id, state = (headings(browser).index(title) for title in ("Name", "UUID", "State"))
    assert {row[task_id]: row[state] for row in table()} == watched.states
    assert {row[name] for row in table()} == {NAME}
    watched.assert_hidden(browser.page_source)


def headings(browser: Chrome) -> list[str]:
    cells = browser.find_elements(By.CSS_SELECTOR, "#tasks-table thead th")
    return [str(cell.get_property("textContent")).strip() for cell in cells]


def test_the_page_of_a_task_shows_neither_prompt_nor_result(watched: Watched, browser: Chrome) -> None:
    for task_id, state in watched.states.items():
        browser.get(f"{watched.flower.url}/task/{task_id}")

        page = browser.find_element(By.TAG_NAME, "body").text
        assert task_id in page
        assert state in page
        assert page.count("<hidden>") == (3 if state == "SUCCESS" else 2), (
            "arguments by place and name, result"
        )
        watched.assert_hidden(browser.page_source)


def test_the_page_of_a_worker_shows_no_secrets(watched: Watched, env: Environment, browser: Chrome) -> None:
    (worker,) = (row["hostname"] for row in watched.flower.get("/workers?json=true").json()["data"])

    browser.get(f"{watched.flower.url}/worker/{worker}")

    assert NAME in browser.page_source
    watched.assert_hidden(browser.page_source)
    passwords = [url.password for url in map(urlsplit, env.values()) if url.password not in (None, "guest")]
    assert [password for password in passwords if str(password) in browser.page_source] == []


def test_what_the_pages_are_made_from_shows_neither(watched: Watched) -> None:
    found = rows(watched.flower)

    assert len(found) >= len(watched.states)
    watched.assert_hidden(json.dumps(found, ensure_ascii=False))


def test_the_api_shows_neither(watched: Watched) -> None:
    listed = watched.flower.get("/api/tasks")

    assert listed.json().keys() >= watched.states.keys()
    watched.assert_hidden(listed.text)
    for task_id, state in watched.states.items():
        information, result = (
            watched.flower.get(f"/api/task/{what}/{task_id}") for what in ("info", "result")
        )
        assert (information.json()["state"], result.json()["state"]) == (state, state)
        watched.assert_hidden(information.text + result.text)
        waited = watched.flower.get(f"/api/task/result/{task_id}?timeout=5")
        watched.assert_hidden(waited.text)


def test_its_log_shows_neither(watched: Watched) -> None:
    watched.assert_hidden(watched.flower.log())


@pytest.mark.parametrize("button", ["", "?terminate=true"], ids=["revoke", "terminate"])
def test_revoking_a_running_task_cancels_it(watched: Watched, env: Environment, button: str) -> None:
    with application(env):
        from textgen import client
        from textgen.tasks import generate

        task_id = generate.delay("Hello", **mock(delay_s=0.05, tokens=900)).id
        wait_until(lambda: client.get(task_id).status == "PROCESSING", PATIENCE_S, "it runs")

        assert watched.flower.post(f"/api/task/revoke/{task_id}{button}").status_code == 200

        assert client.wait(task_id, PATIENCE_S).status == "CANCELLED"
    wait_until(lambda: shown(watched.flower)[task_id] == "REVOKED", PATIENCE_S, "Flower shows it")


# Who may see it


@pytest.fixture
def lonely_env(stack_env: Callable[..., Environment]) -> Environment:
    """A stack in which nobody else is."""
    return stack_env("rabbitmq")


def listening(flower: FlowerProcess) -> set[str]:
    """The addresses that it accepts connections on."""
    sockets = psutil.Process(flower.pid).net_connections("inet")
    return {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}


def test_it_listens_on_loopback_unless_told_otherwise(
    lonely_env: Environment, start_flower: Callable[..., FlowerProcess]
) -> None:
    flower = start_flower(lonely_env).wait_ready()

    assert listening(flower) == {"127.0.0.1"}
    assert flower.get("/tasks").status_code == 200
    assert flower.get("/api/tasks").status_code == 401


@pytest.mark.parametrize(
    ("variables", "args"),
    [
        ({}, ["--address=0.0.0.0"]),
        ({}, ["--address=::"]),
        ({"FLOWER_ADDRESS": "0.0.0.0"}, []),
        ({"FLOWER_BASIC_AUTH": ""}, ["--address=0.0.0.0"]),
    ],
    ids=["IPv4", "IPv6", "variable", "empty login"],
)
def test_it_does_not_listen_elsewhere_without_a_login(
    start_flower: Callable[..., FlowerProcess], variables: Environment, args: list[str]
) -> None:
    flower = start_flower(environment.live() | variables, *args)

    assert flower.wait() == 1
    assert "needs a login" in flower.log()
    assert "--basic-auth" in flower.log()
    assert "Traceback" not in flower.log()


def test_it_listens_elsewhere_with_a_login_and_asks_for_it(
    lonely_env: Environment, start_flower: Callable[..., FlowerProcess]
) -> None:
    flower = start_flower(lonely_env, "--address=0.0.0.0", f"--basic-auth={':'.join(LOGIN)}").wait_ready()

    assert listening(flower) == {"0.0.0.0"}
    for path in ("/", "/tasks", "/workers", "/broker", "/api/tasks"):
        assert flower.get(path).status_code == 401
        assert flower.get(path, auth=("boss", "guess")).status_code == 401
    assert flower.get("/tasks", auth=LOGIN).status_code == 200
    assert LOGIN[1] not in flower.log()
