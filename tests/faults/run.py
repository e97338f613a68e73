"""One run of the fault matrix on one stack, in an order that the seed decides."""

from __future__ import annotations

import json
import random
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.faults.checker import Violation, check
from tests.faults.history import History
from tests.faults.rows import ROWS, Row
from tests.faults.sampler import Sampler
from tests.faults.traffic import Traffic
from tests.faults.world import ANSWER_S, END_S, LANES, ROOT, World, digest, repeat_until
from tests.processes import wait_until

#: Seconds in which everything has to go on as before once a fault is over.
RECOVERY_S = 30.0
#: Seconds of traffic before the first fault.
WARM_UP_S = 3.0


@dataclass
class Outcome:
    """How one row went."""

    row: Row
    #: Seconds from the end of the fault until everything went on as before; None: it did not.
    recovered_s: float | None = None
    #: Why the row failed, or did not reach the phase that it names.
    failure: str | None = None
    took_s: float = 0.0


def make_world(kind: str, folder: Path, history: History, choice: random.Random, source: Path) -> World:
    """A world of a kind; not started."""
    if kind == "embedded":
        from tests.faults.embedded_world import EmbeddedWorld

        return EmbeddedWorld(folder, history, choice, source)
    from tests.faults.rabbitmq_world import RabbitMQWorld

    return RabbitMQWorld(folder, history, choice, source)


def chosen(kind: str, quick: bool, numbers: set[int]) -> list[Row]:
    """The rows of a run."""
    rows = [row for row in ROWS if kind in row.kinds and (row.is_quick or not quick)]
    return [row for row in rows if not numbers or row.number in numbers]


class Run:
    """One run.

    Args:
        world: The stack, not started.
        rows: What is done to it; the order is the run's own.
    """

    def __init__(self, world: World, rows: list[Row], seed: int) -> None:
        self.world, self.rows, self.seed = world, rows, seed
        self.outcomes: list[Outcome] = []

    def do(self) -> list[Violation]:
        """Start the stack, do every row to it, and check what was seen."""
        world = self.world
        world.history.write(
            "meta",
            seed=self.seed,
            stack=world.kind,
            ttl_s=1800 + 2 * 86_400 + 7200,
            max_attempts=3,
            answer_bound_s=ANSWER_S,
            end_bound_s=END_S,
            queues=list(LANES),
        )
        try:
            world.start()
            with Traffic(world) as traffic, Sampler(world) as sampler:
                self._warm_up(traffic)
                order = list(self.rows)
                world.choice.shuffle(order)
                for row in order:
                    self._one(row, traffic)
                sampler.keys()
                traffic.stop_offering()
                self._quiesce(traffic)
                self._look_at_pages()
        finally:
            world.stop()
        self._find_leaks()
        return check(world.history.read())

    def _warm_up(self, traffic: Traffic) -> None:
        wait_until(lambda: traffic.ended, 30, "traffic flows")
        time.sleep(WARM_UP_S)  # a rate takes time

    def _one(self, row: Row, traffic: Traffic) -> None:
        began, outcome = time.monotonic(), Outcome(row)
        self.outcomes.append(outcome)
        self.world.history.write("fault", at=time.time(), row=row.number, name=row.fault, step="begin")
        try:
            row.run(self.world)
            outcome.recovered_s = self._recover(row, traffic)
        except Exception as exc:  # noqa: BLE001 - whatever goes wrong is the row's outcome
            outcome.failure = f"{type(exc).__name__}: {exc}"
            traceback.print_exc()
            self.world.ensure()
        self.world.history.write("fault", at=time.time(), row=row.number, name=row.fault, step="end")
        outcome.took_s = time.monotonic() - began
        print(_line(outcome, self.world.kind), flush=True)

    def _recover(self, row: Row, traffic: Traffic) -> float:
        """Wait until a new task completes and none waits; returns the seconds since the fault was over."""
        world = self.world
        world.ensure()
        world.settled(
            repeat_until(world.submit, lambda a: a.status == 202, RECOVERY_S, "submits are accepted"),
            "COMPLETED",
        )
        wait_until(lambda: not traffic.backlog(), RECOVERY_S, "the backlog is worked off")
        since = time.time() - world.healed_at
        accepted, ended = traffic.flow()
        world.history.write(
            "rate", at=time.time(), row=row.number, since_heal_s=since, baseline_per_s=accepted, per_s=ended
        )
        return since

    def _quiesce(self, traffic: Traffic) -> None:
        """Wait until all has ended, and write down what is left."""
        world = self.world
        wait_until(lambda: not traffic.open, END_S, f"all tasks end; open: {list(traffic.open)[:5]}")
        busy = lambda: {q: n for q, n in world.queue_depths().items() if n and not q.endswith(".dead")}  # noqa: E731
        with suppress(AssertionError):  # then the checker says what is left
            wait_until(lambda: not busy(), 60, "no message is left")
        from textgen import client

        letters = client.dead_letters(10_000)
        world.history.write(
            "final",
            at=time.time(),
            records=self._records(),
            queues={q: n for q, n in world.queue_depths().items() if not q.endswith(".dead")},
            dead=[{"id": letter.id, "reason": letter.reason} for letter in letters],
        )
        for line in world.lines("run"):
            fields = {name: line[name] for name in ("at", "op", "id", "attempt", "pid", "step")}
            world.history.write("run", **fields)

    def _records(self) -> dict[str, Any]:
        store: redis.Redis = self.world.store
        names = list(store.scan_iter("task:*", count=1000))
        records = [json.loads(text) for text in store.mget(names) if text] if names else []
        return {
            record["task_id"]: {
                **digest(record),
                "owner": record["owner"],
                "op": record["metadata"].get("op"),
            }
            for record in records
        }

    def _look_at_pages(self) -> None:
        for path, text in self.world.pages():
            if self.world.canary in text:
                self.world.history.write("leak", at=time.time(), where=f"Flower's {path}")

    def _find_leaks(self) -> None:
        for log in self.world.logs():
            if log.exists() and self.world.canary in log.read_text(errors="replace"):
                self.world.history.write("leak", at=time.time(), where=log.name)


def _line(outcome: Outcome, kind: str) -> str:
    row = outcome.row
    how = outcome.failure or f"recovered after {outcome.recovered_s or 0:.1f} s"
    return f"[{kind}] row {row.number} {row.fault} ({row.phase}): {how} ({outcome.took_s:.1f} s)"


__all__ = ["ROOT", "Outcome", "Run", "chosen", "make_world"]
