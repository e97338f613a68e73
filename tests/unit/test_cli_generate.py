"""`single`, `multiple` and `interactive`: what they ask for, what they show, how they end."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
from click.testing import CliRunner

from tests.unit.scripted_client import ScriptedClient, chunk, state
from textgen.cli import cli
from textgen.errors import BrokerUnavailable, InvalidRequest
from textgen.lifecycle import Event, Status


@pytest.fixture
def client(monkeypatch):
    made = ScriptedClient()
    monkeypatch.setattr("textgen.cli.connection.connect", lambda: made)
    return made


def run(*arguments, stdin=None):
    return CliRunner().invoke(cli, arguments, input=stdin)


def documents(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_single_writes_the_text_to_stdout_and_states_to_stderr(client):
    result = run("single", "hello")
    assert result.exit_code == 0
    assert result.stdout == "two words\n"
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["PENDING", "PROCESSING", "COMPLETED"]
    assert next(iter(client.records)) in result.stderr
    assert "2 tokens · mock · 3.5 s" in result.stderr


def test_single_passes_every_option_on(client):
    options = [
        "--engine",
        "mock",
        "--model",
        "m",
        "--max-tokens",
        "7",
        "--temperature",
        "0.5",
        "--top-p",
        "0.9",
    ]
    options += ["--stop", "a", "--stop", "b", "--seed", "1", "--priority", "9", "--lane", "bulk"]
    options += ["--metadata", '{"k": [1]}', "--ttl-s", "60", "--deadline-s", "30"]
    assert run("single", "hello", *options).exit_code == 0
    assert client.submitted == [
        {
            "prompt": "hello",
            "engine": "mock",
            "model": "m",
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": ["a", "b"],
            "seed": 1,
            "priority": 9,
            "lane": "bulk",
            "metadata": {"k": [1]},
            "ttl_s": 60,
            "deadline_s": 30,
        }
    ]


@pytest.mark.parametrize(
    ("option", "fields"), [("--cache", {"cache": True}), ("--no-cache", {"cache": False})]
)
def test_single_says_whether_a_cached_text_will_do(client, option, fields):
    run("single", "hello", option)
    assert client.submitted == [{"prompt": "hello"} | fields]


def test_single_passes_an_idempotency_key_on(client):
    run("single", "hello")
    run("single", "hello", "--idempotency-key", "order-17")
    assert client.keys == [None, "order-17"]


def test_a_system_message_makes_a_conversation(client):
    run("single", "hello", "--system", "be brief")
    system, user = {"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}
    assert client.submitted == [{"messages": [system, user]}]


@pytest.mark.parametrize("arguments", [["single"], ["single", "-"]])
def test_single_reads_a_piped_prompt(client, arguments):
    assert run(*arguments, stdin="über\n").exit_code == 0
    assert client.submitted == [{"prompt": "über"}]


def test_a_prompt_that_is_not_utf8_is_refused(client):
    result = run("single", stdin=b"\xff\xfe\x00")
    assert result.exit_code == 2
    assert "not UTF-8" in result.stderr


@pytest.mark.parametrize("value", ["{", "[]", "3", "[" * 100_000])
def test_metadata_must_be_a_json_object(client, value):
    result = run("single", "hello", "--metadata", value)
    assert result.exit_code == 2
    assert "JSON" in result.stderr
    assert not client.submitted


def test_single_json_is_one_document(client):
    result = run("single", "hello", "--json")
    assert documents(result) == [record.as_dict() for record in client.records.values()]
    assert result.stderr == ""


def test_a_failed_task_shows_its_error_and_is_exit_code_1(client):
    result = run("single", "fail")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "deadline: it was not done in time" in result.stderr


def test_a_time_out_names_the_task_and_its_state(client):
    result = run("single", "hang", "--timeout", "0.2")
    assert result.exit_code == 5
    assert result.stdout == "two \n"
    assert f"Task {next(iter(client.records))} was last seen PROCESSING." in result.stderr


def test_a_time_out_in_json_is_the_record_as_last_seen(client):
    result = run("single", "hang", "--timeout", "0.2", "--json")
    assert result.exit_code == 5
    assert [document["status"] for document in documents(result)] == ["PROCESSING"]


def test_a_refused_request_is_wrong_usage(client):
    client.refusal = InvalidRequest.of({"field": "top_p", "reason": "too large"})
    result = run("single", "hello")
    assert (result.exit_code, result.stderr) == (2, "Error: top_p: too large\n")


def test_text_of_a_void_attempt_is_told_apart(client, monkeypatch):
    def stream(task_id):
        yield chunk(1, 1, "lost")
        yield Event("2-2", "reset", 2, {"reason": "worker lost"})
        yield state(3, 2, Status.PROCESSING)
        yield chunk(4, 2, "kept")

    monkeypatch.setattr(client, "stream", stream)
    result = run("single", "hello")
    assert result.stdout == "lost\nkept\n"
    assert "void" in result.stderr
    assert "attempt 2" in result.stderr


def test_multiple_generates_three_examples_by_default(client):
    result = run("multiple")
    assert result.exit_code == 0
    assert len(client.submitted) == 3
    assert result.stdout.count("two words") == 3
    assert "3 COMPLETED · 6 tokens" in result.stdout
    assert result.stderr.count("COMPLETED") == 3


def test_multiple_takes_files_lines_and_prompts(client, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"one\r\n\n  \ntwo")
    assert run("multiple", str(file), "three", "-", "--seed", "1", stdin="four\n").exit_code == 0
    assert sorted(request["prompt"] for request in client.submitted) == ["four", "one", "three", "two"]
    assert {request["seed"] for request in client.submitted} == {1}


def test_multiple_without_any_prompt_is_wrong_usage(client, tmp_path):
    (tmp_path / "empty").touch()
    assert run("multiple", str(tmp_path / "empty")).exit_code == 2


def test_multiple_json_has_a_line_for_each_outcome(client):
    result = run("multiple", "a", "fail", "hang", "--timeout", "0.3", "--json")
    assert result.exit_code == 5
    lines = documents(result)
    assert sorted(line["status"] for line in lines if "status" in line) == ["COMPLETED", "FAILED"]
    [late] = [line for line in lines if "index" in line]
    assert (late["index"], late["error"]["type"]) == (2, "WaitTimeout")
    assert client.records[late["task_id"]].prompt == "hang"


def test_multiple_runs_no_more_than_asked_at_once(client):
    result = run("multiple", "hang", "a", "--parallel", "1", "--timeout", "0.3", "--json")
    assert result.exit_code == 5
    assert [line["task_id"] is None for line in documents(result)] == [False, True]
    assert [request["prompt"] for request in client.submitted] == ["hang"]


def test_multiple_stops_submitting_where_the_broker_is_down(client, monkeypatch):
    calls = []

    def submit(request, **_):
        calls.append(request)
        raise BrokerUnavailable("no broker")

    monkeypatch.setattr(client, "submit", submit)
    result = run("multiple", "a", "b", "c", "--parallel", "1")
    assert result.exit_code == 4
    assert len(calls) == 1
    assert "3 without outcome" in result.stdout


def test_interactive_takes_a_prompt_from_every_line_of_a_pipe(client):
    result = run("interactive", stdin="one\n\nfail\ntwo\n")
    assert result.exit_code == 0
    assert result.stdout == "two words\ntwo words\n"
    assert [request["prompt"] for request in client.submitted] == ["one", "fail", "two"]


def test_interactive_goes_on_after_an_error(client):
    client.refusal = BrokerUnavailable("no broker")
    result = run("interactive", stdin="one\ntwo\n")
    assert result.exit_code == 0
    assert result.stderr == "Error: no broker (try again in 5 s)\n" * 2


def test_ctrl_c_cancels_the_generation_and_the_loop_goes_on(client):
    def interrupt():
        client.hangs.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    result = run("interactive", "--json", stdin="hang\none\n")
    assert result.exit_code == 0
    assert [line["status"] for line in documents(result)] == ["CANCELLED", "COMPLETED"]


def test_ctrl_c_ends_single_and_leaves_the_task_alone(client):
    def interrupt():
        client.hangs.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    result = run("single", "hang")
    assert result.exit_code == 130
    assert "was last seen PROCESSING" in result.stderr
    assert [record.status for record in client.records.values()] == [Status.PENDING]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("command", ["single", "multiple"])
def test_an_error_of_ours_ends_the_command_instead_of_hanging_it(client, monkeypatch, command):
    monkeypatch.setattr(client, "get", lambda task_id: 1 / 0)
    result = run(command, "hello")
    assert isinstance(result.exception, RuntimeError)
