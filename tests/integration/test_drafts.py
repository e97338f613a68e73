"""The text of an attempt on its way into the log, through a store that is away now and then."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.processes import wait_until
from tests.services import PrivateRedis
from textgen import draft as drafts
from textgen.draft import Draft, Writer
from textgen.engines.base import Chunk
from textgen.errors import StoreBroken, StoreUnavailable
from textgen.heartbeat import Running
from textgen.lifecycle import Record, new_task_id
from textgen.settings import Settings
from textgen.store import Store, fanout, keys, log
from textgen.store.answers import Claim, Terms, Verdict
from textgen.store.connection import connect
from textgen.store.fanout import Piece

#: What becomes of a write.
OK, REFUSED, UNANSWERED = "ok", "refuses (nothing is done)", "loses the answer (it is done)"
#: Who writes after a chunk.
ITSELF, WRITER, NOBODY = "itself", "writer", "nobody"


class Shaky:
    """Writes to the store, with a mood at each call."""

    def __init__(self) -> None:
        self.moods: list[str] = []
        self.calls: list[int] = []

    def append_each(self, store: Store, pieces: Iterable[Piece]) -> list[Verdict]:
        pieces = list(pieces)
        self.calls.append(len(pieces))
        mood = self.moods.pop(0) if self.moods else OK
        if mood == REFUSED:
            raise StoreUnavailable("no")
        verdicts = fanout.append_each(store, pieces)
        if mood == UNANSWERED:
            raise StoreUnavailable("nobody knows")
        return verdicts


@pytest.fixture
def shaky(monkeypatch: pytest.MonkeyPatch) -> Shaky:
    made = Shaky()
    monkeypatch.setattr(drafts, "fanout", made)
    return made


@pytest.fixture
def place(redis_server: PrivateRedis) -> Settings:
    return Settings(redis_url=redis_server.url_of(redis_server.new_database()))


@pytest.fixture
def store(place: Settings) -> Iterator[Store]:
    client = connect(place)
    yield Store(client, 60)
    client.close()


@pytest.fixture
def writer(store: Store) -> Writer:
    return Writer(store)


def begun(writer: Writer) -> Draft:
    """The draft of an attempt that has just begun."""
    submitted = writer.store.submit(Record(new_task_id(), prompt="hello"), Terms(60_000, 0, "print"), 600)
    assert submitted.terms is not None
    claimed = writer.store.claim(submitted.record, submitted.terms, "token", "worker").record
    assert claimed is not None
    return Draft(Running(claimed, "token", 60), submitted.terms, writer, "worker")


def lost(writer: Writer) -> Draft:
    """The draft of an attempt that has written "ab", which Redis has lost."""
    draft = begun(writer)
    for text in "ab":
        draft.add(Chunk(text))
        draft.flush()
    writer.store.client.flushdb()
    return draft


def logged(draft: Draft) -> str:
    return log.text_of(draft.store, draft.running.record.task_id, 1)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([OK, REFUSED, UNANSWERED]), max_size=12),
    st.lists(st.sampled_from([ITSELF, WRITER, NOBODY]), min_size=10, max_size=10),
)
def test_the_log_has_each_piece_once_whatever_becomes_of_the_answers(
    writer: Writer, shaky: Shaky, moods: list[str], who: list[str]
) -> None:
    draft = begun(writer)
    shaky.moods = list(moods)
    for number, by in enumerate(who):
        draft.add(Chunk(f" {number}"))
        if by == ITSELF:
            draft.flush()
        elif by == WRITER:
            writer.write([draft])
    shaky.moods = []
    draft.flush(is_last=True)
    assert logged(draft) == draft.text == "".join(f" {number}" for number in range(10))
    control = draft.store.control(draft.running.record.task_id)
    assert control is not None
    assert control.tokens == 10


def test_what_is_in_flow_is_written_by_another_thread_for_all(writer: Writer, shaky: Shaky) -> None:
    flowing = [begun(writer) for _ in range(5)]
    for draft in flowing:
        draft.add(Chunk("a"))
        draft.pass_on()
    assert shaky.calls == [1] * 5, "the first chunk of each was written by itself"
    for _ in range(3):
        for draft in flowing:
            draft.add(Chunk("b"))
            draft.pass_on()
    wait_until(lambda: {logged(draft) for draft in flowing} == {"abbb"}, 10, "all is written")
    assert len(shaky.calls) < 5 + 15


def test_what_is_not_in_flow_is_written_at_once(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "SLOW_S", 0.0)
    draft = begun(writer)
    for number in range(3):
        draft.add(Chunk(str(number)))
        draft.pass_on()
        assert logged(draft) == draft.text


def test_an_attempt_whose_token_is_void_learns_it_from_the_writer(writer: Writer) -> None:
    draft, other = begun(writer), begun(writer)
    writer.store.client.hset(keys.state(draft.running.record.task_id), "token", "another")
    for one in (draft, other):
        one.add(Chunk("a"))
    writer.write([draft, other])
    assert (draft.running.verdict, other.running.verdict) == (Verdict.FENCED, Verdict.OK)
    assert (logged(draft), logged(other)) == ("", "a")


def test_a_task_that_redis_has_lost_is_claimed_again_by_its_attempt(writer: Writer) -> None:
    draft = begun(writer)
    draft.add(Chunk("a"))
    draft.pass_on()
    writer.store.client.flushdb()
    draft.add(Chunk("b"))
    writer.write([draft])
    draft.add(Chunk("c"))
    draft.pass_on()
    assert draft.running.verdict is Verdict.OK
    assert logged(draft) == draft.text == "abc"


@pytest.mark.parametrize("mood", [REFUSED, UNANSWERED])
@pytest.mark.parametrize("by", [ITSELF, WRITER])
def test_what_redis_has_lost_is_written_again_whatever_becomes_of_the_first_try(
    writer: Writer, shaky: Shaky, mood: str, by: str
) -> None:
    draft = lost(writer)
    draft.add(Chunk("c"))
    shaky.moods = [OK, mood]
    draft.flush()
    draft.add(Chunk("d"))
    if by == WRITER:
        writer.write([draft])
    draft.flush()
    assert draft.running.verdict is Verdict.OK
    assert logged(draft) == draft.text == "abcd"


@pytest.mark.parametrize("is_done", [True, False])
def test_what_redis_has_lost_is_written_again_whatever_becomes_of_the_claim(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    draft = lost(writer)
    claim = writer.store.claim

    def fails(*args: Any) -> Claim:
        monkeypatch.undo()
        if is_done:
            claim(*args)
        raise StoreUnavailable("nobody knows")

    monkeypatch.setattr(writer.store, "claim", fails)
    for text in "cd":
        draft.add(Chunk(text))
        draft.flush()
    assert draft.running.verdict is Verdict.OK
    assert logged(draft) == draft.text == "abcd"


@pytest.mark.parametrize("mood", [OK, REFUSED, UNANSWERED])
@pytest.mark.parametrize("by", [ITSELF, WRITER])
def test_what_redis_lost_by_coming_back_older_is_written_again(
    place: Settings, writer: Writer, shaky: Shaky, mood: str, by: str
) -> None:
    draft, plain = begun(writer), connect(place, decodes=False)
    names = [make(draft.running.record.task_id) for make in keys.OF_TASK]
    for text in ("a", "b", "c"):
        if text == "b":
            saved = {name: plain.dump(name) for name in names if plain.exists(name)}
        draft.add(Chunk(text, 2, 5 if text == "a" else None))
        draft.flush()
    before = log.newest(writer.store, draft.running.record.task_id)
    for name, value in saved.items():
        plain.restore(name, 600_000, value, replace=True)
    plain.close()
    draft.add(Chunk("d", 2))
    shaky.moods = [mood]
    if by == WRITER:
        writer.write([draft])
    draft.flush()
    draft.add(Chunk("e", 2))
    draft.flush()
    assert draft.running.verdict is Verdict.OK
    assert logged(draft) == draft.text == "abcde"
    control = draft.store.control(draft.running.record.task_id)
    assert control is not None
    assert (control.tokens, control.prompt_tokens) == (10, 5)
    found = log.read(writer.store, draft.running.record.task_id, before)
    assert found[0].type == "reset", "whoever had read it all sees that it begins anew"
    assert "".join(event.data.get("text", "") for event in found).endswith("abcde")


def test_a_text_that_cannot_be_written_does_not_end_the_writing(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = begun(writer)
    broken = threading.Event()

    def breaks(*_: object) -> list[Verdict]:
        broken.set()
        monkeypatch.undo()
        raise RuntimeError("a bug")

    draft.add(Chunk("a"))
    draft.pass_on()
    monkeypatch.setattr(fanout, "append_each", breaks)
    draft.add(Chunk("b"))
    draft.pass_on()
    assert broken.wait(10)
    draft.add(Chunk("c"))
    draft.pass_on()
    wait_until(lambda: logged(draft) == "abc", 10, "all is written")


def test_what_was_in_flow_when_the_store_went_away_is_written_once_it_is_back(
    writer: Writer, shaky: Shaky
) -> None:
    draft = begun(writer)
    draft.add(Chunk("a"))
    draft.pass_on()
    shaky.moods = [UNANSWERED, REFUSED]
    for text in "bcd":
        draft.add(Chunk(text))
        draft.pass_on()
    wait_until(lambda: logged(draft) == "abcd", 10, "all is written, and no chunk came meanwhile")


def test_one_that_the_store_will_not_take_disturbs_no_other(writer: Writer) -> None:
    odd, other = begun(writer), begun(writer)
    for draft in (odd, other):
        draft.add(Chunk("a"))
        draft.pass_on()
    name = keys.events(odd.running.record.task_id)
    writer.store.client.delete(name)
    writer.store.client.set(name, "no log")
    for draft in (odd, other):
        draft.add(Chunk("b"))
    writer.write([odd, other])
    assert logged(other) == "ab"
    assert (odd.has_more, other.has_more) == (False, False)
    with pytest.raises(StoreBroken):
        odd.pass_on()


def test_a_chunk_that_cannot_be_counted_disturbs_no_other(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, other = begun(writer), begun(writer)
    for draft in (odd, other):
        draft.add(Chunk("a"))
        draft.pass_on()
    monkeypatch.setattr(drafts, "SLOW_S", 60.0)
    none: Any = None
    odd.add(Chunk("b", none))
    odd.pass_on()
    for text in "bcd":
        other.add(Chunk(text))
        other.pass_on()
    wait_until(lambda: logged(other) == "abcd", 5, "all of the other is written")
    with pytest.raises(TypeError):
        odd.pass_on()


@pytest.mark.parametrize("text", ["b\ud800", b"b", 5])
def test_a_text_that_cannot_be_written_is_not_taken_in(writer: Writer, text: Any) -> None:
    draft = begun(writer)
    draft.add(Chunk("a"))
    with pytest.raises((UnicodeEncodeError, AttributeError)):
        draft.add(Chunk(text))
    draft.flush()
    assert logged(draft) == draft.text == "a"
