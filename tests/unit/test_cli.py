"""The command group: what it loads, how it documents itself, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from textgen.cli import cli, exits
from textgen.cli.root import COMMANDS, error_line
from textgen.errors import (
    BrokerUnavailable,
    ConfigurationError,
    InvalidRequest,
    StoreForbidden,
    StoreUnavailable,
    TaskFinished,
    TextgenError,
    Unavailable,
    UnknownTask,
    WaitTimeout,
)
from textgen.lifecycle import Record, Status, new_task_id
from textgen.settings import get_settings


def loaded_by(*arguments: str) -> set[str]:
    """The top-level packages in memory after `textgen` ran with `arguments`."""
    code = (
        "import json, sys\n"
        "from textgen.cli import main\n"
        f"sys.argv = ['textgen', *{arguments!r}]\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [("--help",), ("single", "--help"), ("list", "--help")])
def test_help_loads_nothing_heavy(arguments):
    heavy = {"celery", "kombu", "redis", "rich", "prompt_toolkit", "httpx", "pydantic", "flask"}
    assert not loaded_by(*arguments) & heavy


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_line_of_a_command_is_its_own(name):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name][1]


def test_help_documents_every_exit_code():
    shown = CliRunner().invoke(cli, ["--help"]).output
    for code, meaning in exits.EXIT_CODES.items():
        assert f"{code}  {meaning}" in shown


def test_an_unknown_command_is_wrong_usage():
    result = CliRunner().invoke(cli, ["singel", "x"])
    assert result.exit_code == 2
    assert "single" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TextgenError("x"), 1),
        (TaskFinished("x"), 1),
        (InvalidRequest("x"), 2),
        (ConfigurationError("x"), 2),
        (UnknownTask("x"), 3),
        (BrokerUnavailable("x"), 4),
        (StoreUnavailable("x"), 4),
        (WaitTimeout("x"), 5),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(monkeypatch, error, code):
    def connect():
        raise error

    monkeypatch.setattr("textgen.cli.connection.connect", connect)
    result = CliRunner().invoke(cli, ["status", new_task_id()])
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("Error: x")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variables", "is_told"),
    [({}, True), ({"REDIS_URL": "redis://x"}, False), ({"RABBITMQ_HOST": "x"}, False)],
)
def test_where_nothing_runs_an_error_says_how_to_start_it(monkeypatch, variables, is_told):
    for name in ("CELERY_BROKER_URL", "REDIS_URL"):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("textgen.settings.get_settings", get_settings.__wrapped__)
    for error in (BrokerUnavailable("x"), StoreUnavailable("x")):
        assert ("`make run` or `textgen up`" in error_line(error)) is is_told
    for error in (Unavailable("x"), StoreForbidden("x")):
        assert "make run" not in error_line(error)


@pytest.mark.parametrize(
    "arguments",
    [
        ["dead", "list"],
        ["dead", "purge", "--yes"],
        ["keys", "create", "--name", "x"],
        ["webhooks", "deliveries", new_task_id()],
        ["webhooks", "secret", "rotate"],
    ],
)
def test_what_does_not_go_over_http_refuses_where_the_others_do(monkeypatch, arguments):
    monkeypatch.setenv("TEXTGEN_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("textgen.settings.get_settings", get_settings.__wrapped__)
    result = CliRunner().invoke(cli, arguments, prog_name="textgen")
    assert result.exit_code == exits.USAGE
    assert f"`textgen {' '.join(arguments[: 2 + (arguments[1] == 'secret')])}` goes straight" in result.stderr
    assert "unset TEXTGEN_URL" in result.stderr
    assert CliRunner().invoke(cli, [*arguments[:2], "--help"]).exit_code == 0


def test_several_outcomes_come_to_the_worst_of_their_codes():
    done, failure = Record("a", Status.COMPLETED), Record("b", Status.FAILED)
    assert exits.code_of_all([done]) == 0
    assert exits.code_of_all([done, failure]) == 1
    assert exits.code_of_all([failure, WaitTimeout("x"), done]) == 5
    assert exits.code_of_all([WaitTimeout("x"), BrokerUnavailable("x")]) == 4
