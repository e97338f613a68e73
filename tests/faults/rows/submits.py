"""Faults between a client and the queue, of clocks, and of what waits."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

from tests.faults.rows.registry import row
from tests.faults.rows.workers import end, end_group
from tests.faults.world import Answer, NotInPhase, Task, World, repeat_until
from tests.processes import require, wait_until


class Submission(threading.Thread):
    """A submit that stops at a gate of the web app; `answer` is there once it was answered."""

    def __init__(self, world: World, gate: str, key: str | None = None) -> None:
        super().__init__(daemon=True)
        self.world, self.gate, self.key, self.op = world, gate, key, world.op()
        self.answer: Answer | None = None
        self.start()
        wait_until(lambda: world.lines("gate", op=self.op), 20, f"{self.op} is at gate {gate}")
        line = world.lines("gate", op=self.op)[0]
        self.pid = line["pid"]
        self.task = Task(line["id"], self.op)
        world.in_phase(self.task, "PENDING")
        if world.begins(self.task) and gate == "publish":
            raise NotInPhase(f"{self.op} was published before its gate")

    def run(self) -> None:
        mock = {"delay_s": 0.01, "tokens": 3}
        self.answer = self.world.submit(self.op, key=self.key, mock=mock, metadata={"gate": self.gate})


@row(39, "kill -9 of the web app before it publishes", "S", embedded=True, quick=True)
def web_killed_before_publish(world: World) -> None:
    submission = _killed_at(world, "publish")
    # the janitor publishes the outbox entry half a minute after it was made: let it be due now
    world.store.zadd("outbox", {submission.task.id: 0}, xx=True)
    world.settled(submission.task, "COMPLETED")


@row(40, "kill -9 of the web app before it answers", "S", embedded=True, quick=True)
def web_killed_before_answer(world: World) -> None:
    key = f"key-{world.op()}"
    submission = _killed_at(world, "answer", key)
    mock, metadata = {"delay_s": 0.01, "tokens": 3}, {"gate": "answer"}
    world.open(submission.task)
    again = repeat_until(
        lambda: world.submit(submission.op, key=key, mock=mock, metadata=metadata),
        lambda answer: answer.status == 202,
        30,
        "the repeated request is answered",
    )
    assert again.id == submission.task.id, "the same key leads to the same task"
    world.settled(submission.task, "COMPLETED")
    assert world.begins(submission.task) == 1


def _killed_at(world: World, gate: str, key: str | None = None) -> Submission:
    world.kills_web = True
    try:
        with world.only(None):
            submission = Submission(world, gate, key)
            with world.fault():
                end(submission.pid)
                submission.join(30)
        world.ensure()
    finally:
        world.kills_web = False
    assert submission.answer is not None
    assert submission.answer.status is None, f"{submission.op} was answered all the same"
    return submission


@row(41, "a web process that is stuck in a publish, and replaced", "S", embedded=True)
def web_stuck(world: World) -> None:
    world.kills_web = True
    try:
        submission = Submission(world, "publish")
        with world.fault():
            end(submission.pid, signal.SIGSTOP)
            wait_until(lambda: submission.pid not in world.web_processes(), 30, "it is replaced")
            submission.join(30)
    finally:
        world.kills_web = False
    world.ensure()
    world.store.zadd("outbox", {submission.task.id: 0}, xx=True)
    world.settled(submission.task, "COMPLETED")


@row(42, "a worker whose clock is an hour ahead, and one an hour behind", "Q, R", embedded=True)
def wrong_clocks(world: World) -> None:
    for shift in ("+1h", "-1h"):
        _one_wrong_clock(world, shift)


def _one_wrong_clock(world: World, shift: str) -> None:
    worker = world.extra_worker((require("faketime", "faketime"), "-f", shift))
    with world.only(None):
        tasks = [world.queued(deadline_s=120) for _ in range(3)]
        with world.fault(), worker:
            records = [world.settled(task, "COMPLETED") for task in tasks]
            left = world.accept(mock={"delay_s": 0.1, "tokens": 40})
            wait_until(lambda: world.begins(left), 30, f"{left.op} begins")
            worker.kill()
    world.await_attempt(left, 2)
    for record in [*records, world.settled(left, "COMPLETED")]:
        assert record["created_at"] <= record["started_at"] <= record["finished_at"]
        assert abs(time.time() - _seconds(record["finished_at"])) < 60


def _seconds(text: str) -> float:
    from textgen.lifecycle import time_ms

    return time_ms(text) / 1000


@row(44, "workers so slow that tasks wait longer than they are kept", "Q")
def slow_consumers(world: World) -> None:
    with world.fault(), world.only(None):
        task = world.queued(ttl_s=2)
        time.sleep(4)  # part of the fault
        world.in_phase(task, "PENDING")
        record = world.read(task.id)
        assert record is not None
        assert record["status"] == "PENDING"
    world.settled(task, "COMPLETED")


@row(46, "cancel of a queued task, and kill -9 of all workers", "Q", embedded=True, quick=True)
def cancelled_in_queue(world: World) -> None:
    with world.only(None):
        task = world.queued()
        with world.fault():
            assert world.cancel(task.id) == 200
            for node in world.nodes():
                end_group(world.pid_of(node))
    world.ensure()
    after = world.accept()
    world.settled(after, "COMPLETED")
    world.settled(task, "CANCELLED")
    assert not world.begins(task)


@row(47, "cancel in the moment of the final write", "W", embedded=True, quick=True)
def cancelled_at_write(world: World) -> None:
    for _ in range(5):
        task = world.at_gate("write")
        canceller = threading.Thread(target=world.cancel, args=(task.id,))
        pause = world.choice.uniform(0, 0.02)
        with world.fault():
            canceller.start()
            time.sleep(pause)  # so that either may come first
            world.open(task)
            canceller.join()
        record = world.settled(task, "COMPLETED", "CANCELLED")
        assert world.read(task.id) == record


@row(49, "everything restarted, one after the other", "any")
def rolling_restart(world: World) -> None:
    with world.fault():
        for node in world.nodes():
            end(world.pid_of(node), signal.SIGTERM)
            wait_until(lambda node=node: node not in world.nodes(), 30, f"{node} has stopped")
            world.ensure()
        world.kills_web = True
        for pid in world.web_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            wait_until(lambda pid=pid: pid not in world.web_processes(), 30, "a web process has stopped")
        world.ensure()
        world.restart_servers()
    world.kills_web = False


@row(50, "the deadline passes while the task is queued", "Q")
def deadline_in_queue(world: World) -> None:
    with world.fault(), world.only(None):
        task = world.queued(deadline_s=1)
        record = world.settled(task, "FAILED", within_s=20)
    assert record["error"]["type"] == "deadline"
    assert not world.begins(task)
