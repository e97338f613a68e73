"""What is submitted behind a task has an id before, so that a second submit of it changes nothing."""

from __future__ import annotations

from types import SimpleNamespace

from celery import Signature

from textgen import options
from textgen.lifecycle import Record, Status, is_task_id
from textgen.tasks import _goes_on, generate


def test_a_callback_gets_an_id_and_keeps_the_one_that_it_has() -> None:
    mine: Signature = generate.s()
    [first], [second] = options.with_ids(mine), options.with_ids([mine])
    assert is_task_id(first.options["task_id"])
    assert first.options["task_id"] != second.options["task_id"]
    assert "task_id" not in mine.options
    assert options.with_ids(first)[0].options == first.options
    assert options.with_ids(None) == []


def test_a_finished_task_that_comes_again_submits_callbacks_that_have_ids() -> None:
    record = Record("id", status=Status.COMPLETED)

    def goes_on(*callbacks: Signature) -> bool:
        return _goes_on(SimpleNamespace(request=SimpleNamespace(chain=None, callbacks=[*callbacks])), record)

    assert goes_on(*options.with_ids(generate.s()))
    assert not goes_on(generate.s())
    assert not goes_on()
