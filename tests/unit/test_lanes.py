"""Which queue a task waits in, and what of it a worker consumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from textgen import lanes, options, queues, serving
from textgen.errors import ConfigurationError, InvalidRequest
from textgen.lifecycle import Record
from textgen.requests import parse_request
from textgen.settings import Settings, get_settings
from textgen.store import lines

NONE = Settings(engine="mock")
LOCAL = Settings(engine="mock", engine_lanes="local, openai")


def record(lane: Any = "interactive", **params: Any) -> Record:
    return Record("t", lane=lane, params=params)


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No engine is set, whether the local one works here or not."""
    monkeypatch.setenv("TEXTGEN_ENGINE", "")
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


def test_without_lanes_of_engines_there_are_two() -> None:
    assert [lane.queue(NONE) for lane in lanes.every(NONE)] == [
        "text_generation_tasks",
        "text_generation_tasks.bulk",
    ]
    assert lanes.queue_of(record(engine="local"), NONE) == "text_generation_tasks"


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        (record(), "text_generation_tasks"),
        (record("bulk", engine="anthropic"), "text_generation_tasks.bulk"),
        (record(engine="local"), "text_generation_tasks.local"),
        (record("bulk", engine="openai"), "text_generation_tasks.openai.bulk"),
    ],
)
def test_a_task_waits_in_its_engines_own_lane_if_it_has_one(task: Record, queue: str) -> None:
    assert lanes.queue_of(task, LOCAL) == queue
    assert lanes.of_queue(queue, LOCAL) == lanes.lane_of(task, LOCAL)


@pytest.mark.usefixtures("no_engine")
def test_a_task_that_names_no_engine_waits_where_the_default_one_is() -> None:
    assert lanes.queue_of(record(), Settings(engine="openai", engine_lanes="openai")).endswith(".openai")
    assert lanes.queue_of(record(), Settings(engine="", engine_lanes="local")).endswith(".local")


def test_a_task_whose_engine_means_none_here_waits_in_the_shared_lane() -> None:
    assert lanes.lane_of(record("bulk", engine="gone"), LOCAL) == lanes.Lane("bulk")
    with pytest.raises(ConfigurationError):
        lanes.next_engine(record(engine="gone"), LOCAL)


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({}, "interactive"),
        ({"engine": "gone"}, "interactive"),
        ({"engine": "local/big, mock"}, "local.interactive"),
        ({"engine": "mock,local"}, "interactive"),
    ],
)
def test_the_line_of_a_task_is_that_of_the_engine_named_first(params: dict[str, Any], line: str) -> None:
    assert lines.line_of(record(**params), LOCAL) == line
    tried = [{"engine": "local", "model": "big", "attempt": 1, "round": 0, "reason": "", "retryable": True}]
    assert lines.line_of(record(**params).but(tried=tried, attempt=1), LOCAL) == line
    assert line in lines.every(LOCAL)


@pytest.mark.parametrize("name", ["bulk", "dead", "dlx", "wait", "webhooks"])
def test_no_lane_is_called_what_another_queue_is(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings(engine_lanes=f"local,{name}")


def test_the_lanes_of_a_worker_bound_how_long_it_holds_a_message() -> None:
    each = NONE.prefetch_count * (NONE.attempt_timeout_s + NONE.attempt_margin_s)
    assert [queues.held_s(NONE, consumed) for consumed in (1, 2, 4)] == [each, 2 * each, 4 * each]
    tight = Settings(broker_url="amqp://", consumer_timeout_s=int(2 * each) + 1)
    queues.refuse_timeout(tight, 2)
    with pytest.raises(ConfigurationError, match="a worker of 4 lanes"):
        queues.refuse_timeout(tight, 4)


# What Celery's option `queue` asks for


@pytest.fixture
def local_lanes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TEXTGEN_ENGINE_LANES", "local")
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


def asked(queue: str, **fields: Any) -> tuple[str, str | None]:
    found = options.with_options(parse_request({"prompt": "x", **fields}), {"queue": queue})
    return found.lane, found.engine


@pytest.mark.usefixtures("local_lanes")
def test_the_option_queue_names_a_lane_and_the_engine_whose_it_is() -> None:
    assert asked("text_generation_tasks.bulk") == ("bulk", None)
    assert asked("text_generation_tasks.bulk", engine="local") == ("bulk", "local")
    assert asked("text_generation_tasks.local.bulk") == ("bulk", "local")
    for refused in ("text_generation_tasks.openai", "celery"):
        with pytest.raises(InvalidRequest, match=r"text_generation_tasks\.local\.bulk"):
            asked(refused)
    with pytest.raises(InvalidRequest, match="names mock"):
        asked("text_generation_tasks.local", engine="mock")


# What a worker consumes


def worker(settings: Settings, *names: str) -> Celery:
    """An app as `celery worker -Q names` makes it."""
    app = Celery(set_as_current=False)
    app.conf.task_queues = queues.lanes(settings)
    app.amqp.queues.select(names)
    return app


SHARED = ("text_generation_tasks", "text_generation_tasks.bulk")
OWN = ("text_generation_tasks.local", "text_generation_tasks.local.bulk")


@pytest.mark.parametrize(
    ("consumed", "ready", "others"),
    [
        ((), ["local", "openai", "mock"], []),
        (SHARED, ["mock"], ["local", "openai"]),
        (SHARED[1:], ["mock"], ["local", "openai"]),
        (OWN, ["local"], ["openai"]),
        (OWN[1:], ["local"], ["openai"]),
    ],
)
def test_a_worker_has_the_engines_of_its_lanes_ready(
    consumed: tuple[str, ...], ready: list[str], others: list[str]
) -> None:
    app = worker(LOCAL, *consumed)
    assert serving.expected(app, LOCAL) == ready
    assert serving.left_to_others(app, LOCAL) == others
    assert [serving.runs(app, LOCAL, name) for name in ("local", "openai")] == [
        name not in others for name in ("local", "openai")
    ]
    assert serving.runs(app, LOCAL, "mock")


def test_a_default_engine_with_lanes_of_its_own_is_ready_only_there() -> None:
    settings = Settings(engine="local", engine_lanes="local")
    assert serving.expected(worker(settings, *SHARED), settings) == []
    assert serving.expected(worker(settings, *OWN), settings) == ["local"]
    assert serving.expected(worker(settings), settings) == ["local"]
