"""The `textgen` command against RabbitMQ, Redis and a worker: directly, and over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.environment import Environment
from tests.integration.terminals import Terminal, documents, mock, textgen

#: Servers that are not there: what the command must do without when it goes over HTTP.
NOWHERE = {"CELERY_BROKER_URL": "amqp://guest:guest@127.0.0.1:1//", "REDIS_URL": "redis://127.0.0.1:1/0"}
UNKNOWN_ID = "0b8f3b52-6f64-4f0e-9d39-6c1c2d7f9a10"
#: A generation that takes as long as a test needs to do something to it.
SLOW = ("--max-tokens", "1000", *mock(delay_s=0.1, tokens=600))


@pytest.fixture(scope="module")
def stack(
    module_stack_env: Callable[..., Environment], module_start_worker: Callable[..., Any]
) -> Environment:
    env = module_stack_env("rabbitmq")
    module_start_worker(env, "threads", 8).wait_ready()
    return env


@pytest.fixture(scope="module")
def over_http(stack: Environment, module_start_web: Callable[..., Any]) -> Environment:
    return stack | NOWHERE | {"TEXTGEN_URL": module_start_web(stack).url}


@pytest.fixture(params=["stack", "over_http"])
def env(request: pytest.FixtureRequest) -> Environment:
    """The environment of a command that goes either way."""
    found: Environment = request.getfixturevalue(request.param)
    return found


def submit_slow(env: Environment) -> str:
    """Submit a slow task and leave it running; returns its id."""
    late = textgen(env, "single", "slow", *SLOW, "--timeout", "2", "--json")
    assert late.returncode == 5, late.stderr
    [record] = documents(late)
    return str(record["task_id"])


def test_single_shows_states_and_the_text(env: Environment) -> None:
    run = textgen(env, "single", "Count to ten.", *mock(tokens=12))

    assert run.returncode == 0, run.stderr
    states = [line.split()[0] for line in run.stderr.splitlines()]
    assert (states[0], states[-1]) == ("PENDING", "COMPLETED")
    task_id = run.stderr.split()[1]
    record = json.loads(textgen(env, "status", task_id, "--json").stdout)
    assert run.stdout.strip() == record["result"].strip()
    assert (record["prompt"], record["engine"]) == ("Count to ten.", "mock")


def test_the_text_comes_while_it_is_generated(stack: Environment) -> None:
    with (
        Terminal(stack, "single", "slow", "--no-stream", *SLOW) as silent,
        Terminal(stack, "single", "slow", *SLOW) as terminal,
    ):
        terminal.expect("PROCESSING")
        terminal.expect("\n")
        terminal.expect(" ")
        terminal.expect(" ")
        shown = terminal.text
        terminal.send("\x03")
        assert terminal.wait() == 130
        assert "COMPLETED" not in shown
        silent.expect("attempt 1")
        silent.send("\x03")
        assert silent.wait() == 130
        for text in (silent.text, terminal.text):
            [task_id] = re.findall(r"Task (\S+) was last seen PROCESSING", text)
            assert textgen(stack, "cancel", task_id).returncode == 0


def test_a_failed_task_is_exit_code_1(env: Environment) -> None:
    run = textgen(env, "single", "Hello", *mock(failure="permanent"), "--json")

    assert run.returncode == 1
    [record] = documents(run)
    assert (record["status"], bool(record["error"]["message"])) == ("FAILED", True)


def test_a_prompt_is_read_from_a_pipe(env: Environment) -> None:
    [record] = documents(textgen(env, "single", "--json", stdin="مرحبا 🙂\n"))
    assert (record["prompt"], record["status"]) == ("مرحبا 🙂", "COMPLETED")


def test_a_wrong_request_is_exit_code_2_and_names_the_field(env: Environment) -> None:
    run = textgen(env, "single", "Hello", "--temperature", "nan", "--max-tokens", "0")

    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert "max_tokens" in run.stderr


@pytest.mark.parametrize("command", ["status", "cancel"])
@pytest.mark.parametrize("task_id", [UNKNOWN_ID, "nonsense"])
def test_an_unknown_id_is_exit_code_3(env: Environment, command: str, task_id: str) -> None:
    run = textgen(env, command, task_id)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (3, "", 1), run.stderr


def test_a_running_task_can_be_cancelled_once_and_for_all(env: Environment) -> None:
    task_id = submit_slow(env)

    first, again = (textgen(env, "cancel", task_id, "--json") for _ in range(2))

    assert (first.returncode, again.returncode) == (0, 0)
    assert [record["status"] for record in documents(again)] == ["CANCELLED"]


def test_a_completed_task_cannot_be_cancelled(env: Environment) -> None:
    [record] = documents(textgen(env, "single", "Hello", "--json"))
    run = textgen(env, "cancel", record["task_id"])
    assert (run.returncode, run.stderr.count("\n")) == (1, 1)


def test_multiple_takes_the_prompts_of_a_file(env: Environment) -> None:
    file = f"{env['XDG_STATE_HOME']}-prompts"
    with open(file, "w") as prompts:
        prompts.writelines(f"prompt {n}\n" for n in range(20))

    run = textgen(env, "multiple", file, "--json", "--lane", "bulk")

    assert run.returncode == 0, run.stderr
    records = documents(run)
    assert {record["prompt"] for record in records} == {f"prompt {n}" for n in range(20)}
    assert {(record["status"], record["lane"]) for record in records} == {("COMPLETED", "bulk")}


def test_multiple_sums_up(env: Environment) -> None:
    run = textgen(env, "multiple")

    assert run.returncode == 0, run.stderr
    assert run.stderr.count("COMPLETED") == 3
    assert re.search(r"^3 COMPLETED · \d+ tokens · \d", run.stdout, re.MULTILINE)


def test_multiple_ends_with_the_worst_outcome(env: Environment) -> None:
    run = textgen(env, "multiple", "a", "b", *mock(failure="permanent"), "--json")
    assert run.returncode == 1
    assert [record["status"] for record in documents(run)] == ["FAILED", "FAILED"]


def test_list_shows_the_newest_tasks(stack: Environment) -> None:
    [record] = documents(textgen(stack, "single", "the newest", "--json"))

    listed = json.loads(textgen(stack, "list", "--limit", "2", "--json").stdout)
    shown = textgen(stack, "list", "--status", "COMPLETED")

    assert len(listed) == 2
    assert listed[0] == record
    assert shown.stdout.splitlines()[1].split()[0] == record["task_id"]
    assert "the newest" in shown.stdout


def test_monitor_shows_the_system_without_prompts(stack: Environment) -> None:
    [record] = documents(textgen(stack, "single", "a secret", "--json"))

    [look] = documents(textgen(stack, "monitor", "--once", "--json"))
    shown = textgen(stack, "monitor", "--once")

    assert look["statuses"]["COMPLETED"] >= 1
    assert "text_generation_tasks" in look["queues"]
    assert len(look["workers"]) == 1
    assert look["tasks"][0]["task_id"] == record["task_id"]
    assert (shown.returncode, "secret" in shown.stdout) == (0, False)
    assert record["task_id"] in shown.stdout


def test_monitor_goes_on_until_ctrl_c(stack: Environment) -> None:
    with Terminal(stack, "monitor", "--interval", "0.2") as terminal:
        for _ in range(3):
            terminal.expect("workers")
        terminal.send("\x03")
        assert terminal.wait() == 130


def test_what_servers_do_not_tell_is_a_clear_error(over_http: Environment) -> None:
    run = textgen(over_http, "monitor", "--json")
    assert (run.returncode, run.stdout) == (2, "")
    assert "unset TEXTGEN_URL" in run.stderr


def test_ctrl_c_cancels_the_generation_and_interactive_goes_on(env: Environment) -> None:
    with Terminal(env, "interactive", *SLOW) as terminal:
        terminal.expect(">")
        terminal.send("slow\r")
        terminal.expect("PROCESSING")
        terminal.send("\x03")
        terminal.expect("CANCELLED")
        terminal.expect(">")
        terminal.send("\x03")  # with nothing running, it does no harm
        terminal.send("again\r")
        terminal.expect("PROCESSING")
        terminal.send("\x03")
        terminal.expect("CANCELLED")
        terminal.expect(">")
        terminal.send("\x04")
        assert terminal.wait() == 0
    task_ids = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", terminal.text)
    assert len(set(task_ids)) == 2
    for task_id in task_ids:
        record = json.loads(textgen(env, "status", task_id, "--json").stdout)
        assert record["status"] == "CANCELLED"


def test_interactive_remembers_prompts_for_this_user_alone(stack: Environment) -> None:
    for recall, prompt in ((False, "remember me"), (True, "\x1b[A")):
        with Terminal(stack, "interactive") as terminal:
            terminal.expect(">")
            terminal.send(prompt)
            if recall:
                terminal.expect("remember me")
            terminal.send("\r")
            terminal.expect("COMPLETED")
            terminal.expect(">")
            terminal.send("\x04")
            assert terminal.wait() == 0
    listed = json.loads(textgen(stack, "list", "--limit", "2", "--json").stdout)
    assert [record["prompt"] for record in listed] == ["remember me"] * 2


def test_no_color_keeps_escapes_away(stack: Environment) -> None:
    with (
        Terminal(stack, "single", "Hello") as colourful,
        Terminal(stack | {"NO_COLOR": "1"}, "single", "Hello") as plain,
    ):
        assert (colourful.wait(), plain.wait()) == (0, 0)
    assert "\x1b[" in colourful.text
    assert "\x1b" not in plain.text


@pytest.mark.parametrize(
    "arguments", [("single", "x"), ("multiple", "x", "y"), ("status", UNKNOWN_ID), ("list",)]
)
def test_without_servers_it_is_exit_code_4_without_a_traceback(
    stack: Environment, arguments: tuple[str, ...]
) -> None:
    run = textgen(stack | NOWHERE, *arguments)
    assert run.returncode == 4
    assert "Traceback" not in run.stderr
    assert run.stderr


def test_without_a_broker_nothing_is_submitted(stack: Environment) -> None:
    before = json.loads(textgen(stack, "list", "--json").stdout)
    broken = stack | {"CELERY_BROKER_URL": NOWHERE["CELERY_BROKER_URL"]}

    run = textgen(broken, "single", "x", "--json")

    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (4, "", 1), run.stderr
    assert json.loads(textgen(stack, "list", "--json").stdout) == before


def test_without_the_server_it_is_exit_code_4(stack: Environment) -> None:
    run = textgen(stack | {"TEXTGEN_URL": "http://127.0.0.1:1"}, "single", "x", "--json")
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (4, "", 1), run.stderr


def test_it_works_on_the_embedded_broker(
    stack_env: Callable[..., Environment], start_worker: Callable[..., Any]
) -> None:
    env = stack_env("valkey")
    start_worker(env, "threads", 2).wait_ready()

    run = textgen(env, "multiple", "one", "two", "--json")
    [look] = documents(textgen(env, "monitor", "--once", "--json"))

    assert (run.returncode, len(documents(run))) == (0, 2)
    assert look["statuses"]["COMPLETED"] == sum(look["statuses"].values()) == 2
    assert len(look["workers"]) == 1
