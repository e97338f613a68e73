"""What one call of an engine tells all others, by the pieces that it yields or the error that it raises."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.services import PrivateRedis
from textgen import claims
from textgen.calls import Call
from textgen.engines.base import Allowance, Chunk, Finish, Quota
from textgen.errors import EngineUnusable, PermanentEngineError, StoreUnavailable, TransientEngineError
from textgen.gate import Gate, Wait
from textgen.lifecycle import Record, Usage, new_task_id
from textgen.messages import Delivery
from textgen.settings import Settings
from textgen.store import Store, circuits, permits
from textgen.store.answers import Terms
from textgen.store.connection import connect

FINISH = Finish("stop", Usage(1, 1))
LIMITS = json.dumps({"openai": {"requests": 2, "window_s": 60}})


class World:
    """A gate with a Redis of its own."""

    def __init__(self, url: str, **given: Any) -> None:
        self.settings = Settings(redis_url=url, breaker_failures=2, breaker_reset_s=60, **given)
        self.store = Store(connect(self.settings), 8.0)
        self.gate = Gate(self.store, self.settings)

    def ask(self, engine: str = "openai") -> Call | Wait:
        return self.gate.ask(Record(new_task_id(), prompt="Hello", params={"engine": engine}), new_task_id())

    def call(self, *pieces: Chunk | Finish | Exception, engine: str = "openai") -> Call:
        """Make a call whose engine yields `pieces`, or raises the last."""
        call = self.ask(engine)
        assert isinstance(call, Call)
        try:
            for _ in call.watch(_played(pieces)):
                pass
        except (TransientEngineError, PermanentEngineError):
            pass
        return call

    def look(self) -> Any:
        return permits.look(self.store, "openai", 60)


def _played(pieces: Iterable[Chunk | Finish | Exception]) -> Iterator[Chunk | Finish]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


def throttled(retry_after_s: float | None) -> TransientEngineError:
    error = TransientEngineError("429")
    error.retry_after_s, error.is_throttled = retry_after_s, True
    return error


@pytest.fixture
def world(
    request: pytest.FixtureRequest, redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    made = World(redis_server.url_of(redis_server.new_database()), **getattr(request, "param", {}))
    raw = connect(made.settings, decodes=False)
    monkeypatch.setattr(circuits, "_client", lambda pid: raw)
    monkeypatch.setattr(circuits, "get_settings", lambda: made.settings, raising=False)
    monkeypatch.setattr("textgen.engines.openai.OpenAIEngine.account", classmethod(lambda c, s: "openai"))
    yield made
    made.store.client.close()
    raw.close()


with_limit = pytest.mark.parametrize("world", [{"engine_limits": LIMITS}], indirect=True)


def test_an_engine_of_this_machine_needs_no_permit(world: World) -> None:
    call = world.ask("mock")
    assert isinstance(call, Call)
    assert not call.is_permitted
    assert not world.store.client.keys("*")


def test_failures_open_the_circuit_and_what_follows_goes_to_the_next(world: World) -> None:
    for _ in range(2):
        world.call(Chunk("a"), TransientEngineError("broke off"))
    assert world.look().circuit == "open"
    assert isinstance(world.ask(), Wait)
    passed = world.ask("openai/big,mock")
    assert isinstance(passed, Call)
    assert passed.entry.engine == "mock"
    assert [(entry.label, why) for entry, why in passed.passed_over] == [("openai/big", "circuit open")]


@pytest.mark.parametrize("answer", [(Chunk("a"), FINISH), (PermanentEngineError("no"),), (throttled(0.001),)])
def test_an_answer_of_any_kind_ends_a_row_of_failures(world: World, answer: tuple[Any, ...]) -> None:
    world.call(TransientEngineError("down"))
    assert world.look().failures == 1
    world.call(*answer)
    assert (world.look().failures, world.look().circuit) == (0, "closed")


def test_a_text_that_is_left_off_says_nothing_of_the_provider(world: World) -> None:
    world.call(TransientEngineError("down"))
    call = world.ask()
    assert isinstance(call, Call)
    pieces = call.watch(_played([Chunk("a"), FINISH]))
    next(pieces)
    pieces.close()
    assert world.look().failures == 1


def test_an_engine_that_hangs_counts_as_a_failure_once(world: World) -> None:
    call = world.ask()
    assert isinstance(call, Call)
    pieces = call.watch(_played([Chunk("a"), TransientEngineError("timed out at last")]))
    next(pieces)
    call.hung()
    with pytest.raises(TransientEngineError):
        next(pieces)
    assert world.look().failures == 1


def test_a_refusal_pauses_the_provider_for_all(world: World) -> None:
    world.call(throttled(9))
    assert 8 < world.look().paused_s <= 9
    waits = {world.ask().seconds for _ in range(5)}
    assert len(waits) == 5, "spread, so that not all come at once"
    assert min(waits) > 8
    assert world.look().circuit == "closed"


def test_a_success_with_nothing_to_make_good_costs_no_call_of_redis(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = world.ask()
    assert isinstance(call, Call)
    for name in ("answered", "give_back", "ask"):
        monkeypatch.setattr(permits, name, None)
    monkeypatch.setattr(circuits, "report", None)
    assert list(call.watch(_played([Chunk("a"), FINISH]))) == [Chunk("a"), FINISH]
    call.give_back()


def test_what_the_provider_tells_with_its_first_piece_is_heeded(world: World) -> None:
    told = Quota(requests=Allowance(10, 0, 30.0))
    world.call(Chunk("a", quota=told), Chunk("b"), FINISH)
    wait = world.ask()
    assert isinstance(wait, Wait)
    assert 29 < wait.seconds < 31


@with_limit
@pytest.mark.parametrize(
    "made", [(Chunk("a"), FINISH), (TransientEngineError("x"),), (EngineUnusable("no such model"),)]
)
def test_every_call_that_was_made_counts(world: World, made: tuple[Any, ...]) -> None:
    world.call(*made)
    assert (world.look().requests, world.look().tokens) == (1, 2 + 256)


@with_limit
def test_a_call_that_was_not_made_does_not_count(world: World) -> None:
    call = world.ask()
    assert isinstance(call, Call)
    assert world.look().requests == 1
    call.give_back()
    call.give_back()
    assert world.look().requests == 0


@with_limit
def test_a_call_that_was_left_off_before_its_answer_counts(world: World) -> None:
    call = world.ask()
    assert isinstance(call, Call)
    pieces = call.watch(_played([Chunk("a")]))
    next(pieces)
    pieces.close()
    call.give_back()
    assert world.look().requests == 1


@with_limit
def test_a_claim_that_redis_does_not_answer_gives_the_permit_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*given: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(world.store, "claim", away)
    record = Record(new_task_id(), prompt="Hello", params={"engine": "openai"})
    delivery = Delivery(record, Terms(60_000, 0, "print"))
    worker: Any = SimpleNamespace(store=world.store, settings=world.settings, gate=world.gate, name="here")
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            claims.begin(delivery, new_task_id(), worker)
    assert isinstance(world.ask(), Call)
