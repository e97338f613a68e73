"""What is told of engines: which are ready, and what keeps the others from working."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from tests.unit.scripted_provider import ScriptedProvider
from textgen import catalogue, client, engines
from textgen.cli import cli
from textgen.settings import get_settings


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as made:  # which lists the one model `tiny`
        yield made


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch, provider: ScriptedProvider) -> Iterator[object]:
    """`having(NAME="value")` sets variables, beside an address and a key of OpenAI."""

    def set_all(**variables: str) -> None:
        given = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": "sk-canary-7261"} | variables
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()

    monkeypatch.setattr(engines, "_instances", {})
    monkeypatch.setattr(client, "health", lambda: {"broker": None, "store": None})
    monkeypatch.setattr("textgen.engines.local.LocalEngine.missing", classmethod(lambda *_: "not here"))
    yield set_all
    monkeypatch.undo()
    get_settings.cache_clear()


def told(name: str) -> catalogue.Entry:
    return next(entry for entry in catalogue.entries(get_settings()) if entry.name == name)


@pytest.mark.parametrize(
    ("engine", "variables", "lacking"),
    [
        ("openai", {"TEXTGEN_ENGINE": "openai"}, "OPENAI_MODEL"),
        ("openai", {"TEXTGEN_ENGINE": "mock"}, "OPENAI_MODEL"),
        ("openai", {"TEXTGEN_ENGINE": "openai", "OPENAI_MODEL": "tiny"}, ""),
        ("openai", {"TEXTGEN_ENGINE": "openai/tiny"}, ""),
        ("openai", {"TEXTGEN_ENGINE": "mock", "TEXTGEN_ROUTES": '{"good": ["openai/tiny"]}'}, ""),
        ("openai", {"TEXTGEN_ENGINE": "openai", "TEXTGEN_ROUTES": '{"good": ["openai/t"]}'}, "OPENAI_MODEL"),
        ("lab", {"TEXTGEN_SERVERS": '{"lab": {"base_url": "http://h"}}'}, "model of lab in TEXTGEN_SERVERS"),
    ],
)
def test_a_server_without_a_model_is_not_ready(having, engine, variables, lacking):
    having(**variables)
    assert told(engine).why == (f"The engine {engine} needs a model: set {lacking}." if lacking else "")
    assert told(engine).as_dict()["ready"] is not bool(lacking)


def test_check_finds_a_default_engine_without_a_model_wrong(having):
    having(TEXTGEN_ENGINE="openai")
    run = CliRunner().invoke(cli, ["check"])
    assert run.exit_code == 1
    assert "wrong engine openai: The engine openai needs a model: set OPENAI_MODEL." in run.stdout


def test_check_passes_over_a_key_that_nobody_gave_a_model(having):
    having(TEXTGEN_ENGINE="mock")
    run = CliRunner().invoke(cli, ["check"])
    assert run.exit_code == 0, run.stdout
    assert "openai" not in run.stdout


@pytest.mark.parametrize("variables", [{"OPENAI_MODEL": "tinny"}, {"TEXTGEN_ENGINE": "openai/tinny"}])
def test_check_warns_of_a_model_that_its_provider_does_not_list(having, variables):
    having(**{"TEXTGEN_ENGINE": "openai"} | variables)
    run = CliRunner().invoke(cli, ["check"])
    assert run.exit_code == 0, run.stdout
    assert "warn  engine openai: its provider does not list tinny" in run.stdout
    run = CliRunner().invoke(cli, ["check", "--json"])
    assert json.loads(run.stdout)["engine openai"] is None
    assert "warn  engine openai" in run.stderr
    having(TEXTGEN_ENGINE="openai", OPENAI_MODEL="tiny")
    assert "ok    engine openai\n" in CliRunner().invoke(cli, ["check"]).stdout
