"""`status`, `cancel`, `list` and `monitor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit.scripted_client import ScriptedClient, completed, failed
from textgen.cli import cli
from textgen.engine_states import EngineState
from textgen.errors import StoreUnavailable
from textgen.lifecycle import Record, Status, new_task_id
from textgen.store.permits import Account

CANARY = "canary-7261"


@pytest.fixture
def client(monkeypatch):
    made = ScriptedClient()
    monkeypatch.setattr("textgen.cli.connection.connect", lambda: made)
    made.done = completed(Record(new_task_id(), prompt=CANARY), "result \x1b[2Jof\r it")
    made.failed = failed(Record(new_task_id(), prompt=CANARY))
    made.pending = made.submit({"prompt": CANARY})
    made.records |= {made.done.task_id: made.done, made.failed.task_id: made.failed}
    return made


def run(*arguments):
    return CliRunner().invoke(cli, arguments)


def test_status_shows_the_record_without_obeying_its_control_characters(client):
    result = run("status", client.done.task_id)
    assert result.exit_code == 0
    assert "COMPLETED" in result.stdout
    assert "result �[2Jof it" in result.stdout


def test_status_json_is_the_record(client):
    assert json.loads(run("status", client.failed.task_id, "--json").stdout) == client.failed.as_dict()


@pytest.mark.parametrize("command", ["status", "cancel"])
@pytest.mark.parametrize("task_id", ["0b8f3b52-6f64-4f0e-9d39-6c1c2d7f9a10", "nonsense", "", "../x"])
def test_an_unknown_id_is_exit_code_3(client, command, task_id):
    result = run(command, task_id)
    assert result.exit_code == 3
    assert result.stderr.startswith("Error: no task")


def test_cancel_shows_the_cancelled_record(client):
    result = run("cancel", client.pending.task_id, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"] == "CANCELLED"


def test_a_task_that_ended_cannot_be_cancelled(client):
    result = run("cancel", client.done.task_id)
    assert result.exit_code == 1
    assert "already COMPLETED" in result.stderr


def test_list_is_one_array_newest_first(client):
    shown = json.loads(run("list", "--json").stdout)
    assert [task["task_id"] for task in shown] == [
        client.failed.task_id,
        client.done.task_id,
        client.pending.task_id,
    ]


def test_list_is_limited_and_filtered(client):
    assert len(json.loads(run("list", "--json", "--limit", "2").stdout)) == 2
    shown = json.loads(run("list", "--json", "--status", "completed", "--limit", "1").stdout)
    assert [task["task_id"] for task in shown] == [client.done.task_id]


def test_list_takes_every_condition(client):
    mine = client.done.but(metadata={"user": "ann", "n": 7})
    client.records[mine.task_id] = mine

    def listed(*options):
        return [task["task_id"] for task in json.loads(run("list", "--json", *options).stdout)]

    assert listed("--engine", "mock") == [client.failed.task_id, mine.task_id]
    assert listed("--metadata", "user=ann", "--metadata", "n=7") == [mine.task_id]
    assert listed("--metadata", "user=bob") == []
    assert listed("--created-after", "2025-12-31") == [client.failed.task_id, mine.task_id]
    assert listed("--created-after", "2026-01-01T02:00:00+0100") == []
    assert run("list", "--metadata", "user").exit_code == 2


def test_delete_removes_what_has_ended(client):
    assert run("delete", client.done.task_id).exit_code == 0
    assert client.done.task_id not in client.records
    assert run("delete", client.done.task_id).exit_code == 3


def test_delete_leaves_what_has_not_ended(client):
    result = run("delete", client.pending.task_id)
    assert result.exit_code == 1
    assert client.pending.task_id in client.records


def test_list_shows_whole_ids(client):
    result = run("list")
    assert all(task_id in result.stdout for task_id in client.records)


def test_monitor_once_shows_counts_queues_workers_and_tasks(client):
    result = run("monitor", "--once")
    assert "openai  circuit open 12 s, 34/60 requests in 60 s, 7 wait for room" in result.stdout
    assert result.exit_code == 0
    for shown in ("COMPLETED 1", "CANCELLED 0", "text_generation_tasks 4", "w1@host", "taken over 2"):
        assert shown in result.stdout
    assert client.done.task_id in result.stdout


def test_monitor_says_of_an_engine_no_more_than_is_known():
    account = Account("closed", 0, 0.0, 0.0, 0, 0, 0, {}, {})
    assert EngineState("openai", 0, 0, 60.0, account).words() == "circuit closed"


@pytest.mark.parametrize("arguments", [["--once"], ["--once", "--json"]])
def test_monitor_shows_prompts_only_when_asked(client, arguments):
    assert CANARY not in run("monitor", *arguments).output
    assert CANARY in run("monitor", *arguments, "--show-prompts").output


def test_monitor_json_is_one_document_a_look(client):
    shown = json.loads(run("monitor", "--once", "--json").stdout)
    assert shown["engines"][0].items() >= {"engine": "openai", "circuit": "open", "waiting": 7}.items()
    assert shown["statuses"] == {"PENDING": 1, "COMPLETED": 1, "FAILED": 1}
    assert shown["workers"] == ["w1@host"]
    assert shown["janitor"] == {"taken over": 2}
    assert [task["status"] for task in shown["tasks"]] == [Status.FAILED, Status.COMPLETED, Status.PENDING]


def test_monitor_goes_on_while_the_store_is_away(client, monkeypatch):
    looks = iter([client.overview(), StoreUnavailable("no store"), client.overview(), KeyboardInterrupt()])

    def overview():
        look = next(looks)
        if isinstance(look, BaseException):
            raise look
        return look

    monkeypatch.setattr(client, "overview", overview)
    result = run("monitor", "--interval", "0.2")
    assert result.exit_code == 130
    assert "unavailable: no store" in result.stdout
    assert result.stdout.count("w1@host") == 2


@pytest.mark.parametrize(("options", "shown"), [([], "/m.gguf\n"), (["--json"], '{"path": "/m.gguf"}\n')])
def test_fetch_model_says_where_the_model_is(monkeypatch, options, shown):
    def fetch(progress):
        progress("model is there")
        return Path("/m.gguf")

    monkeypatch.setattr("textgen.weights.fetch", fetch)
    result = run("fetch-model", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, shown, "model is there\n")


def test_clearing_the_cache_says_how_much_there_was(client):
    assert run("cache", "clear").stdout == "3 deleted\n"
    assert json.loads(run("cache", "clear", "--json").stdout) == {"cleared": 3}
