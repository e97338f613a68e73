"""Faults of workers, while a task runs or at its end."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any

from tests.faults.rows.registry import row
from tests.faults.world import NotInPhase, Task, World, is_alive
from tests.processes import wait_until

#: Seconds in which a task of a killed worker has to run again: lease, look and delivery.
TAKE_OVER_S = 20.0


def end(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to one process; what is killed has ended afterwards."""
    os.kill(pid, number)
    if number == signal.SIGKILL:
        wait_until(lambda: not is_alive(pid), 10, f"process {pid} has ended")


def end_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process and all of its group."""
    with suppress(ProcessLookupError):
        os.killpg(os.getpgid(pid), number)
    if number == signal.SIGKILL:
        wait_until(lambda: not is_alive(pid), 10, f"process {pid} has ended")


def completed_by(world: World, task: Task, attempt: int) -> dict[str, Any]:
    """The record of a task, which has to be completed by this attempt."""
    record = world.settled(task, "COMPLETED")
    assert record["attempt"] == attempt, f"{task.op} was completed by attempt {record['attempt']}"
    return record


@row(1, "kill -9 of a pool's child", "R", embedded=True)
def child_killed(world: World) -> None:
    task = world.running("prefork", seconds=4)
    with world.fault():
        end(task.pid)
    world.await_attempt(task, 2, TAKE_OVER_S)
    completed_by(world, task, 2)


@row(2, "a child that kills itself in each attempt", "R", embedded=True)
def child_kills_itself(world: World) -> None:
    dies = {"failure": "dies_midway", "times": 99, "after": 3, "delay_s": 0.1}
    with world.fault(), world.only("prefork"):
        task = world.accept(mock=dies)
        world.await_attempt(task, 3, 60)
        record = world.settled(task, "FAILED")
    assert record["error"]["type"] == "worker_lost"
    _is_dead_letter(world, task)


@row(3, "SystemExit in each attempt", "R", embedded=True)
def child_exits(world: World) -> None:
    with world.fault(), world.only("prefork"):
        task = world.accept(metadata={"act": "exits"})
        world.await_attempt(task, 3, 60)
        record = world.settled(task, "FAILED")
    assert record["error"]["type"] == "worker_lost"
    _is_dead_letter(world, task)


def _is_dead_letter(world: World, task: Task) -> None:
    from textgen import client

    wait_until(
        lambda: any(letter.id == task.id for letter in client.dead_letters(1000)),
        30,
        f"{task.op} is among the dead letters",
    )


@row(4, "kill -9 of a worker", "R", embedded=True, quick=True)
def worker_killed(world: World) -> None:
    task = world.running()
    with world.fault():
        end(task.worker)
    world.await_attempt(task, 2, TAKE_OVER_S)
    completed_by(world, task, 2)


@row(5, "kill -9 of all workers, which stay away", "R", embedded=True)
def all_workers_killed(world: World) -> None:
    task = world.running()
    with world.fault():
        for node in world.nodes():
            end_group(world.pid_of(node))
    world.ensure()
    world.await_attempt(task, 2, TAKE_OVER_S)
    completed_by(world, task, 2)


@row(6, "SIGTERM", "R", embedded=True)
def worker_stopped(world: World) -> None:
    task = world.running(seconds=3)
    with world.fault():
        end(task.worker, signal.SIGTERM)
    completed_by(world, task, 1)
    wait_until(lambda: not is_alive(task.worker), 20, "the worker has ended")


@row(7, "SIGTERM three times", "R", embedded=True)
def worker_stopped_thrice(world: World) -> None:
    task = world.running(seconds=3)
    with world.fault():
        for _ in range(3):
            end(task.worker, signal.SIGTERM)
            time.sleep(0.2)  # part of the fault
    record = world.settled(task, "COMPLETED")
    assert record["attempt"] <= 2
    assert record["failures"] == 0
    wait_until(lambda: not is_alive(task.worker), 20, "the worker has ended")


@row(8, "SIGQUIT, a cold stop", "R", embedded=True)
def worker_quits(world: World) -> None:
    task = world.running(seconds=4)
    with world.fault():
        end(task.worker, signal.SIGQUIT)
    record = world.settled(task, "COMPLETED")
    assert record["attempt"] in (1, 2)
    wait_until(lambda: not is_alive(task.worker), 20, "the worker has ended")


@row(9, "SIGTERM, and SIGKILL 2 s later", "R", embedded=True)
def worker_stopped_and_killed(world: World) -> None:
    task = world.running(seconds=10)
    with world.fault():
        end(task.worker, signal.SIGTERM)
        time.sleep(2)  # part of the fault
        world.in_phase(task, "PROCESSING")
        end(task.worker)
    completed_by(world, task, 2)


@row(10, "SIGSTOP of a worker for longer than its lease", "R", embedded=True, quick=True)
def worker_frozen(world: World) -> None:
    task = world.running(seconds=6)
    with world.fault():
        end_group(task.worker, signal.SIGSTOP)
        try:
            # the message may have been given to the frozen worker again, until the broker gives it up
            world.await_attempt(task, 2, 2 * TAKE_OVER_S)
            record = world.settled(task, "COMPLETED")
        finally:
            end_group(task.worker, signal.SIGCONT)
    # the stale attempt goes on until it notices: what it leaves must be what stood before
    assert record["attempt"] >= 2
    time.sleep(3)  # what must not happen has no condition to wait for: three leases' worth of chunks
    assert world.read(task.id) == record, f"{task.op} changed after it had ended"


@row(11, "SIGSTOP of a worker for less than its lease", "R", embedded=True)
def worker_frozen_briefly(world: World) -> None:
    task = world.running(seconds=4)
    with world.fault():
        end_group(task.worker, signal.SIGSTOP)
        time.sleep(1)  # part of the fault
        end_group(task.worker, signal.SIGCONT)
    completed_by(world, task, 1)
    assert world.begins(task) == 1


@row(12, "an attempt past its limit", "R", embedded=True)
def attempt_too_long(world: World) -> None:
    with world.fault():
        task = world.running(seconds=60, attempt_timeout_s=2)
        record = world.settled(task, "FAILED")
    assert record["error"]["type"] == "attempt_timeout"
    assert record["result"], "what it had written is kept"


@row(13, "an attempt past its limit that does not react", "R", embedded=True)
def attempt_hangs(world: World) -> None:
    with world.fault():
        hangs = {"failure": "hangs", "after": 2}
        task = world.running("prefork", mock=hangs, attempt_timeout_s=1)
        record = world.settled(task, "FAILED")
    assert record["error"]["type"] == "attempt_hung"


@row(14, "kill -9 between the final write and the acknowledgement", "A", embedded=True, quick=True)
def killed_before_ack(world: World) -> None:
    task = world.at_gate("ack")
    before = world.record(task.id)
    with world.fault():
        end(task.worker)
    world.ensure()
    wait_until(lambda: world.deliveries(task) >= 2, 40, f"{task.op} is delivered again")
    assert world.record(task.id) == before
    assert world.begins(task) == 1


@row(15, "kill -9 between the last token and the final write", "W", embedded=True)
def killed_before_write(world: World) -> None:
    task = world.at_gate("write")
    if not world.lines("run", id=task.id, step="end"):
        raise NotInPhase(f"the text of {task.op} is not complete")
    with world.fault():
        end(task.worker)
    world.await_attempt(task, 2, TAKE_OVER_S)
    completed_by(world, task, 2)
