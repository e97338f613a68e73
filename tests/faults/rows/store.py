"""Faults of Redis."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.faults.embedded_world import EmbeddedWorld
from tests.faults.rows.broker import never_ran
from tests.faults.rows.registry import row
from tests.faults.rows.workers import TAKE_OVER_S, completed_by, end
from tests.faults.world import NotInPhase, Task, World, repeat_until
from tests.processes import wait_until

#: Seconds for which the store is frozen.
FREEZE_S = 15.0


def answers(world: World) -> bool:
    """Whether the store answers."""
    try:
        return bool(world.store.ping())
    except redis.RedisError:
        return False


def store_back(world: World) -> None:
    """Start the store again and wait until it serves."""
    world.start_store()
    wait_until(lambda: answers(world), 60, "the store answers again")


@row(29, "kill -9 of Redis, started again with its data", "R", embedded=True, quick=True)
def store_killed(world: World) -> None:
    task = world.running(seconds=5)
    with world.fault():
        world.kill_store()
        store_back(world)
    completed_by(world, task, 1)


@row(30, "kill -9 of Redis, started again empty, and of the worker", "R")
def store_and_worker_killed(world: World) -> None:
    """Nothing but the message that the broker still has knows of the task."""
    task = world.running(seconds=8)
    with world.fault(), world.emptying():
        world.kill_store(lose_data=True)
        end(task.worker)
        store_back(world)
    world.ensure()
    record = world.settled(task, "COMPLETED")
    assert record["metadata"]["op"] == task.op
    assert 0 < world.store.ttl(f"task:{task.id}") <= 1800 + 2 * 86_400


@row(30, "kill -9 of Valkey, started again empty", "Q", embedded=True, broker=False)
def valkey_emptied(world: EmbeddedWorld) -> None:
    """Broker and store are one here: all is lost, and everything goes on with what comes next."""
    with world.only(None):
        task = world.queued()
        with world.fault(), world.losing_all():
            world.up.pause()  # or it would start the server before its files are gone
            world.kill_store()
            world.lose_data()
            world.up.resume()
            store_back(world)
    assert world.read(task.id) is None
    world.settled(repeat_until(world.submit, lambda a: a.status == 202, 30, "submits are accepted"))


@row(31, "FLUSHDB of the store", "Q, R", embedded=True)
def store_flushed(world: World) -> None:
    running = world.running(seconds=10)
    with world.only(None):
        queued = [world.queued() for _ in range(5)]
        world.in_phase(running, "PROCESSING")
        with world.fault(), world.emptying():
            world.store.flushdb()
    for task in (running, *queued):
        world.settled(task, "COMPLETED")
        assert world.store.ttl(f"task:{task.id}") > 0


@contextmanager
def frozen_store(world: World) -> Iterator[None]:
    pid = world.store_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@row(32, "SIGSTOP of Redis", "S", embedded=True)
def store_frozen(world: World) -> None:
    with world.fault(), frozen_store(world):
        refused = [world.refused(), world.refused()]
    never_ran(world, refused)


@row(33, "SIGSTOP of Redis", "W", embedded=True)
def store_frozen_at_write(world: World) -> None:
    task = world.at_gate("write")
    with world.fault(), frozen_store(world):
        world.open(task)
        time.sleep(FREEZE_S)  # part of the fault
    world.settled(task, "COMPLETED")


@contextmanager
def full_memory(world: World) -> Iterator[None]:
    world.store.config_set("maxmemory", 1)
    try:
        yield
    finally:
        world.store.config_set("maxmemory", 0)


@row(34, "Redis out of memory", "S", embedded=True, quick=True)
def out_of_memory(world: World) -> None:
    with world.fault(), full_memory(world):
        refused = [world.refused(), world.refused()]
    never_ran(world, refused)


@row(35, "Redis out of memory", "W", embedded=True)
def out_of_memory_at_write(world: World) -> None:
    task = world.at_gate("write")
    with world.fault(), full_memory(world):
        world.open(task)
        time.sleep(3)  # part of the fault
        if world.status(task) != "PROCESSING":
            raise NotInPhase(f"{task.op} was written to a store that is full")
    world.settled(task, "COMPLETED")


@row(36, "an eviction policy that drops tasks", "boot")
def evicting(world: World) -> None:
    worker = world.extra_worker()
    with world.fault():
        world.store.config_set("maxmemory-policy", "volatile-lru")
        try:
            with worker:
                assert worker.wait(60) == 78
        finally:
            world.store.config_set("maxmemory-policy", "noeviction")
    assert "maxmemory-policy" in worker.log()


@contextmanager
def full_disk(world: World) -> Iterator[None]:
    """No file of Redis can grow."""
    pid = world.store_pid
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    sizes = [file.stat().st_size for file in Path(f"/proc/{pid}/cwd").glob("**/*.aof")]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (max(sizes), unlimited[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


@row(37, "the disk of Redis is full", "S, W")
def disk_full(world: World) -> None:
    task = world.at_gate("write")
    with world.fault(), full_disk(world):
        repeat_until(world.submit, lambda a: a.status == 503, 30, "submits are refused")
        refused = [world.refused()]
        world.open(task)
        world.in_phase(task, "PROCESSING")
    never_ran(world, refused)
    world.settled(task, "COMPLETED")


@row(38, "Redis takes 10 clients at the most", "S, W")
def few_clients(world: World) -> None:
    task = world.running(seconds=3)
    most = world.store.config_get("maxclients")["maxclients"]
    with world.fault():
        world.store.config_set("maxclients", 10)
        world.store.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        try:
            answered = [world.submit() for _ in range(5)]
        finally:
            world.store.config_set("maxclients", most)
    assert all(a.status == 202 or (a.status == 503 and a.took_s <= 10) for a in answered)
    world.settled(task, "COMPLETED")
    for answer in answered:
        if answer.id:
            world.settled(Task(answer.id, answer.op), "COMPLETED")


@row(51, "kill -9 of Valkey, broker and store in one, with tasks queued", "Q", embedded=True, broker=False)
def all_in_one_killed(world: World) -> None:
    with world.only(None):
        tasks = [world.queued() for _ in range(20)]
        with world.fault():
            world.kill_store()
            store_back(world)
    for task in tasks:
        world.settled(task, "COMPLETED", within_s=TAKE_OVER_S * 2)
