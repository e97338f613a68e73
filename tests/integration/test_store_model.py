"""The store against a plain model of the lifecycle, in any order of calls that Hypothesis finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.integration.lifecycle_model import ModelTask
from tests.services import PrivateRedis
from textgen.lifecycle import Failure, Record, Status, new_task_id
from textgen.store import Store, keys, log
from textgen.store.answers import Claimed, Moved, Terms

#: Calls go to few tasks with few tokens, so that they meet.
TASKS, TOKENS = 2, ("one", "two", "three")
FAR_S, TTL_MS = 600, 60_000

tasks = st.integers(0, TASKS - 1)
tokens = st.sampled_from(TOKENS)


class Comparison(RuleBasedStateMachine):
    """Does each call to both, and compares answers and everything that can be read."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.store.client.flushdb()
        self.ids = [new_task_id() for _ in range(TASKS)]
        self.models = [ModelTask() for _ in range(TASKS)]

    def both(self, which: int) -> tuple[str, ModelTask]:
        return self.ids[which], self.models[which]

    def known(self, task_id: str) -> Record:
        return self.store.get(task_id) or Record(task_id, prompt="hello")

    # Calls

    @rule(which=tasks, fingerprint=st.sampled_from(["a", "b"]), waits=st.booleans())
    def submit(self, which: int, fingerprint: str, waits: bool) -> None:
        task_id, model = self.both(which)
        terms = Terms(TTL_MS, 0, fingerprint)
        answer = self.store.submit(Record(task_id, prompt="hello"), terms, FAR_S, FAR_S / 2 * waits)
        word = "created" if answer.terms else "clash" if answer.is_clash else "exists"
        assert word == model.submit(fingerprint, waits)

    @rule(which=tasks, token=tokens, is_stale=st.booleans())
    def claim(self, which: int, token: str, is_stale: bool) -> None:
        task_id, model = self.both(which)
        known = self.known(task_id)
        if is_stale:
            known = known.but(attempt=known.attempt + 1)
        terms = Terms(TTL_MS, int(self.store.now_ms()) + FAR_S * 1000)
        answer = self.store.claim(known, terms, token, "worker")
        before = model.attempt
        assert answer.outcome is model.claim(token, known.attempt, known.failures)
        if answer.outcome is Claimed.TAKEN and model.attempt > before:
            assert answer.record is not None
            assert answer.record.attempt == model.attempt

    @rule(which=tasks, token=tokens, behind=st.integers(0, 1), text=st.sampled_from(["", "x", "yz"]))
    def append(self, which: int, token: str, behind: int, text: str) -> None:
        task_id, model = self.both(which)
        writes = max(0, model.writes - behind)
        answer = self.store.append(task_id, token, writes, text) if text else self.store.renew(task_id, token)
        assert answer is model.append(token, writes, text)

    @rule(
        which=tasks,
        token=tokens,
        to=st.sampled_from([Status.PENDING, Status.COMPLETED, Status.FAILED]),
        waits=st.booleans(),
    )
    def move_by_token(self, which: int, token: str, to: Status, waits: bool) -> None:
        model = self.models[which]
        if model.status is Status.PENDING and model.token == token:
            return
        self._move(which, to, "token", model.token == token, waits, token=token)

    @rule(which=tasks, to=st.sampled_from([Status.FAILED, Status.CANCELLED]), is_stale=st.booleans())
    def move_by_revision(self, which: int, to: Status, is_stale: bool) -> None:
        self._move(which, to, "rev", not is_stale, False, rev=self._rev(which, is_stale))

    @rule(which=tasks, to=st.sampled_from([Status.PENDING, Status.FAILED]), is_stale=st.booleans())
    def move_what_lapsed(self, which: int, to: Status, is_stale: bool) -> None:
        rev = self._rev(which, is_stale)
        self._move(which, to, "lapsed", not is_stale, False, rev=rev, lapsed=True)

    def _rev(self, which: int, is_stale: bool) -> str:
        control = self.store.control(self.ids[which])
        return str(int(control.rev if control else 1) - is_stale)

    def _move(self, which: int, to: Status, guard: str, holds: bool, waits: bool, **given: Any) -> None:
        task_id, model = self.both(which)
        failures, text = model.failures + 1, model.text.get(model.attempt, "")
        ended = self.known(task_id).but(status=to, failures=failures, attempt=model.attempt)
        if to.is_terminal:
            ended = ended.but(result=text, error=Failure("x", "y") if to is Status.FAILED else None)
        answer = self.store.move(ended, due_s=FAR_S / 2 * waits, reason="why", **given)
        assert answer.outcome is model.move(to, guard, holds, failures, waits, text)
        if answer.outcome is Moved.OK:
            assert answer.record is not None
            assert answer.record.status is to

    @rule(which=tasks)
    def ask_cancel(self, which: int) -> None:
        task_id, model = self.both(which)
        assert self.store.ask_cancel(task_id)[0] is model.ask_cancel()

    @rule(which=tasks)
    def refuse(self, which: int) -> None:
        task_id, model = self.both(which)
        if not model.is_terminal:  # a submit is refused before anything else can have ended it
            assert self.store.refuse(task_id) is model.refuse()

    @rule(which=tasks)
    def bury(self, which: int) -> None:
        task_id, model = self.both(which)
        ended = Record(task_id, status=Status.FAILED, error=Failure("invalid_message", "no"))
        assert self.store.bury(ended, TTL_MS) is model.bury()

    # Time: what a test cannot wait for is written down as if it had passed

    @rule(which=tasks)
    def the_lease_lapses(self, which: int) -> None:
        self._pass(which, "lease", "lapsed", self.models[which].status is Status.PROCESSING)

    @rule(which=tasks)
    def the_deadline_passes(self, which: int) -> None:
        self._pass(which, "deadline", "overdue", self.models[which].status is not None)

    @rule(which=tasks)
    def the_wait_is_over(self, which: int) -> None:
        if self.models[which].waits:
            self.models[which].waits = False
            self.store.client.hset(keys.state(self.ids[which]), "due", 0)

    def _pass(self, which: int, name: str, known_as: str, applies: bool) -> None:
        if applies and not self.models[which].is_terminal:
            setattr(self.models[which], known_as, True)
            self.store.client.hset(keys.state(self.ids[which]), name, int(self.store.now_ms()) - 1)

    # What can be read

    @invariant()
    def records_are_the_model_s(self) -> None:
        for task_id, model in zip(self.ids, self.models, strict=True):
            record = self.store.get(task_id)
            assert (record is not None) is model.is_visible
            if record is None:
                continue
            assert (record.status, record.attempt) == (model.status, model.attempt)
            assert record.result == (model.result if model.is_terminal else None)
            assert json.loads(self.store.client.get(keys.record(task_id)))["v"] == 1

    @invariant()
    def logs_are_the_model_s(self) -> None:
        for task_id, model in zip(self.ids, self.models, strict=True):
            events = log.read(self.store, task_id)
            shown = {"state": "status", "chunk": "text", "reset": "reason"}
            found = [(e.type, e.attempt, e.data[shown[e.type]]) for e in events if e.type in shown]
            assert found == model.log
            places = [int(event.id.partition("-")[0]) for event in events]
            assert places == sorted(set(places))

    @invariant()
    def everything_expires(self) -> None:
        client = self.store.client
        for task_id, model in zip(self.ids, self.models, strict=True):
            names = [keys.record(task_id), keys.events(task_id), keys.state(task_id)]
            assert all(client.pttl(name) != -1 for name in names if client.exists(name))
            if model.status and not model.is_terminal:
                assert client.zscore(keys.WATCH, task_id) is not None, "somebody will look at it"


@pytest.fixture
def store(redis_server: PrivateRedis) -> Store:
    return Store(redis_server.client(redis_server.new_database()), lease_s=300)


def test_the_store_keeps_to_the_model(store: Store) -> None:
    machine = type("Machine", (Comparison,), {"store": store})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
