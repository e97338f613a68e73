"""How log lines look: what is bound stands on them, and no local variable does."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from textgen import logs
from textgen.settings import get_settings


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.contextvars.clear_contextvars()
    get_settings.cache_clear()


@pytest.fixture
def in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTGEN_LOG_JSON", "true")
    get_settings.cache_clear()


@pytest.mark.usefixtures("in_json")
def test_what_is_bound_stands_on_the_lines_of_every_package(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    structlog.contextvars.bind_contextvars(task_id="some-task")

    structlog.get_logger("textgen.test").info("ours", count=1)
    logging.getLogger("other.package").warning("theirs %s", 2)

    ours, theirs = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert ours["event"] == "ours"
    assert theirs["event"] == "theirs 2"
    for line in (ours, theirs):
        assert line["task_id"] == "some-task"
        assert line["timestamp"].endswith("Z")
    assert (ours["logger"], theirs["logger"]) == ("textgen.test", "other.package")
    assert (ours["level"], theirs["level"]) == ("info", "warning")


def test_configuring_twice_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.configure()
    structlog.get_logger("textgen.test").info("only-once")
    assert capsys.readouterr().err.count("only-once") == 1


def test_what_lies_under_the_level_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("WARNING")
    structlog.get_logger("textgen.test").info("quiet")
    assert "quiet" not in capsys.readouterr().err


def test_a_line_break_in_a_value_does_not_begin_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    structlog.get_logger("textgen.test").info("one", value="a\nforged line")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_traceback_shows_no_local_variable(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    try:
        secret = "".join(["can", "ary"])
        raise ValueError(len(secret))
    except ValueError:
        structlog.get_logger("textgen.test").exception("broken")

    written = capsys.readouterr().err
    assert "ValueError" in written
    assert "canary" not in written


def test_the_outline_of_an_error_has_places_and_no_messages() -> None:
    try:
        try:
            raise KeyError("canary")
        except KeyError as exc:
            raise ValueError("canary") from exc
    except ValueError as exc:
        outline = logs.outline(exc)

    assert [line for line in outline if line.isidentifier()] == ["ValueError", "KeyError"]
    assert any("test_logs.py" in line for line in outline)
    assert "canary" not in str(outline)


def test_requests_that_are_sent_are_told_at_debug_only(capsys: pytest.CaptureFixture[str]) -> None:
    for level, is_told in ((logging.INFO, False), (logging.DEBUG, True), (logging.INFO, False)):
        logs.configure(level)
        logging.getLogger("httpx2").info("HTTP Request")
        assert ("HTTP Request" in capsys.readouterr().err) == is_told
