"""The text of an attempt on its way into the log, through a store that is away now and then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.services import PrivateRedis
from textgen.draft import Draft
from textgen.engines.base import Chunk
from textgen.errors import StoreUnavailable
from textgen.heartbeat import Running
from textgen.lifecycle import Record, new_task_id
from textgen.settings import Settings
from textgen.store import Store, log
from textgen.store.answers import Terms, Verdict
from textgen.store.connection import connect


class Shaky(Store):
    """Appends as it is told: `ok`, `refuses` (nothing is done), `loses the answer` (it is done)."""

    moods: list[str]

    def append(self, *args: object, **named: object) -> Verdict:
        mood = self.moods.pop(0) if self.moods else "ok"
        if mood == "refuses":
            raise StoreUnavailable("no")
        verdict = super().append(*args, **named)  # type: ignore[arg-type]
        if mood == "loses the answer":
            raise StoreUnavailable("nobody knows")
        return verdict


@pytest.fixture
def store(redis_server: PrivateRedis) -> Iterator[Shaky]:
    client = connect(Settings(redis_url=redis_server.url_of(redis_server.new_database())))
    yield Shaky(client, 60)
    client.close()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["ok", "refuses", "loses the answer"]), max_size=12))
def test_the_log_has_each_piece_once_whatever_becomes_of_the_answers(store: Shaky, moods: list[str]) -> None:
    store.moods = []
    submitted = store.submit(Record(new_task_id(), prompt="hello"), Terms(60_000, 0, "print"), 600)
    assert submitted.terms is not None
    task_id = submitted.record.task_id
    claimed = store.claim(submitted.record, submitted.terms, "token", "worker").record
    assert claimed is not None
    draft = Draft(Running(claimed, "token", 60), submitted.terms, store, "worker")
    store.moods = list(moods)
    for number in range(10):
        draft.add(Chunk(f" {number}"))
        draft.flush()
    store.moods = []
    draft.flush(is_last=True)
    assert log.text_of(store, task_id, 1) == draft.text == "".join(f" {number}" for number in range(10))
    control = store.control(task_id)
    assert control is not None
    assert control.tokens == 10
