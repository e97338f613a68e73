"""What is to be run for which options and settings. Nothing is started here."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.environment import SCRUBBED
from textgen.errors import ConfigurationError
from textgen.settings import get_settings
from textgen.stack import embedded
from textgen.stack.address import LockedFile
from textgen.stack.options import Options
from textgen.stack.plan import make


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user without settings, in a folder without a `.env`, whose model was not fetched."""
    for name in [name for name in os.environ if name.startswith(SCRUBBED)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


def options(tmp_path: Path, **given: str | int) -> Options:
    return Options.over_settings(
        tmp_path / "stack", **{"engine": "mock", "port": 0, "flower_port": 0, **given}
    )


def test_options_win_over_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTGEN_WORKERS", "3")
    monkeypatch.setenv("TEXTGEN_CONCURRENCY", "5")
    get_settings.cache_clear()
    settled = options(tmp_path, workers=2)
    assert (settled.workers, settled.concurrency, settled.host) == (2, 5, "127.0.0.1")
    assert Options.from_json(settled.as_json()) == settled


def test_without_settings_there_is_an_embedded_server(tmp_path: Path) -> None:
    plan = make(options(tmp_path, workers=2))
    assert [role.name for role in plan.roles] == ["valkey", "worker-1", "worker-2", "web", "flower"]
    assert plan.env["CELERY_BROKER_URL"] == plan.broker_url
    assert plan.env["REDIS_URL"] == plan.redis_url
    assert plan.broker_url.endswith("/1")
    assert plan.redis_url.endswith("/0")


def test_the_engine_asked_for_is_a_default_for_all_processes(tmp_path: Path) -> None:
    assert make(options(tmp_path)).env["TEXTGEN_ENGINE"] == "mock"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("RABBITMQ_HOST", "mq"), ("REDIS_PASSWORD", "secret"), ("CELERY_BROKER_URL", "amqp://mq//")],
)
def test_a_connection_that_is_set_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    plan = make(options(tmp_path))
    assert "valkey" not in [role.name for role in plan.roles]
    assert value in plan.broker_url + plan.redis_url
    assert "REDIS_URL" not in plan.env


def test_a_connection_in_a_env_file_is_used(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_HOST=elsewhere\n")
    assert make(options(tmp_path)).redis_url == "redis://elsewhere:6379/0"


def test_another_running_stack_is_not_taken_for_a_setting(tmp_path: Path) -> None:
    file = LockedFile(tmp_path / "home" / "textgen" / "address.json")
    file.acquire()
    file.write({"broker_url": "redis://:pw@127.0.0.1:1/1", "redis_url": "redis://:pw@127.0.0.1:1/0"})
    assert get_settings().broker == "redis://:pw@127.0.0.1:1/1"
    assert "valkey" in [role.name for role in make(options(tmp_path)).roles]
    file.release()


def test_without_a_model_the_way_to_run_without_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--engine mock"):
        make(options(tmp_path, engine=""))
    with pytest.raises(ConfigurationError, match=r"engine local cannot run here: .*--engine mock"):
        make(options(tmp_path, engine="local"))


def test_the_embedded_server_keeps_port_and_password(tmp_path: Path) -> None:
    first = embedded.prepare(tmp_path)
    assert embedded.prepare(tmp_path) == first
    assert len(first.password) >= 32


def test_a_damaged_identity_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    embedded.prepare(tmp_path)
    (tmp_path / "valkey" / "identity.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"identity\.json is damaged; remove it"):
        embedded.prepare(tmp_path)


def test_no_command_shows_the_password(tmp_path: Path) -> None:
    plan = make(options(tmp_path))
    password = redis.connection.parse_url(plan.redis_url)["password"]
    assert not any(password in word for role in plan.roles for word in role.command)
