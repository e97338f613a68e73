"""What a webhook is told, and how much of it."""

from __future__ import annotations

import json

import pytest

from textgen.lifecycle import Record, Status, new_task_id
from textgen.store.notices import notice_of, task_of

ENDINGS = ["task.completed", "task.failed", "task.cancelled"]


def record(status: Status = Status.COMPLETED, events: list[str] | None = None, **fields: object) -> Record:
    made = Record(new_task_id(), status, prompt="Hello", attempt=2, webhook={"events": events or ENDINGS})
    return made.but(**fields)


def test_it_is_told_the_events_it_asked_for_and_no_others() -> None:
    assert notice_of(record(Status.PENDING)) is None
    assert notice_of(record(Status.PROCESSING)) is None
    assert notice_of(record(Status.FAILED, ["task.completed"])) is None
    assert notice_of(record(webhook=None)) is None
    told = [notice_of(record(status, ["task.processing", *ENDINGS])) for status in list(Status)[1:]]
    assert [json.loads(f"{{{one.head}}}")["type"] for one in told if one] == ["task.processing", *ENDINGS]


def test_its_id_names_the_change_and_leads_back_to_the_task() -> None:
    done = record()
    notice = notice_of(done)
    assert notice
    assert notice.id == f"msg_{done.task_id}_completed_2"
    assert task_of(notice.id) == done.task_id
    assert task_of(f"{notice.id}:body") == task_of("msg_x_completed_2") == ""
    again = notice_of(done)
    assert again
    assert again.id == notice.id


@pytest.mark.parametrize(
    ("fields", "cut"),
    [
        ({"result": "short"}, []),
        ({"prompt": "p" * 100_000}, ["prompt"]),
        ({"result": "é\n\x01" * 100_000}, ["prompt", "result"]),
        ({"result": "\U0001f600" * 100_000}, ["prompt", "result"]),
        ({"messages": [{"role": "user", "content": "x" * 50_000}], "prompt": None}, ["messages"]),
        (
            {"metadata": {"a": "m" * 30_000}, "result": "r" * 30_000},
            ["prompt", "metadata", "params", "result"],
        ),
    ],
)
def test_what_is_too_long_is_cut_to_under_20_kb_and_says_so(fields: dict, cut: list[str]) -> None:
    whole = record(**fields)
    notice = notice_of(whole)
    assert notice
    assert json.loads(f"{{{notice.head}}}").get("truncated", []) == cut
    sent = notice.arguments("updated_at", "finished_at")[2]
    assert bool(sent) == bool(cut)
    if "result" in cut:
        kept = json.loads(sent)["result"]
        assert whole.result
        assert whole.result.startswith(kept)
        assert len(sent.encode()) > 18_000  # as much of it as fits
    assert len(sent.encode()) + len(notice.head) + 200 < 20_000
