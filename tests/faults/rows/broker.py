"""Faults of RabbitMQ, of its queues, and of the network on the way to it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kombu import Connection

from tests.faults.rabbitmq_world import RabbitMQWorld
from tests.faults.rows.registry import row
from tests.faults.rows.workers import TAKE_OVER_S, completed_by
from tests.faults.world import ANSWER_S, LANES, Answer, repeat_until
from tests.processes import wait_until

#: Seconds in which a broker's alarm is raised or taken back.
ALARM_S = 30.0


@contextmanager
def refusing(world: RabbitMQWorld) -> Iterator[list[Answer]]:
    """A time in which submits are refused: two at least, and nothing of them ever becomes visible."""
    answers: list[Answer] = []
    with world.fault():
        yield answers
        answers.append(repeat_until(world.submit, _is_refusal, ALARM_S, "submits are refused"))
        answers.append(world.refused())
        answers.append(world.delay(world.choice.choice(["delay", "group", "chain"])))
        assert answers[-1].status == 503
        assert answers[-1].took_s <= ANSWER_S


def _is_refusal(answer: Answer) -> bool:
    return answer.status in (503, 429)


def never_ran(world: RabbitMQWorld, answers: list[Answer]) -> None:
    """What was refused never ran, though what was submitted after it has."""
    world.settled(repeat_until(world.submit, lambda a: a.status == 202, 30, "submits are accepted"))
    ops = {line["op"] for line in world.lines("run")}
    assert not ops & {answer.op for answer in answers}, "a refused submit ran"


@row(16, "kill -9 of the broker", "Q")
def broker_killed_with_queue(world: RabbitMQWorld) -> None:
    with world.only(None):
        tasks = [world.queued() for _ in range(20)]
        with world.fault():
            world.broker.kill()
            world.broker.start()
        wait_until(lambda: set(LANES) <= world.queue_depths().keys(), 30, "the queues are back")
    for task in tasks:
        world.settled(task, "COMPLETED")


@row(17, "kill -9 of the broker", "R", quick=True)
def broker_killed(world: RabbitMQWorld) -> None:
    task = world.running(seconds=5)
    with world.fault():
        world.broker.kill()
        world.broker.start()
    completed_by(world, task, 1)
    assert world.begins(task) == 1, "a lost connection does not end an attempt, and none begins beside it"


@row(18, "all connections to the broker closed", "R")
def connections_closed(world: RabbitMQWorld) -> None:
    task = world.running(seconds=4)
    with world.fault():
        world.broker.ctl("close_all_connections", "test")
    completed_by(world, task, 1)


@row(19, "the broker is down for 20 s", "S")
def broker_down(world: RabbitMQWorld) -> None:
    with refusing(world) as answers:
        world.broker.stop()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            answers.append(world.refused())
    world.ensure()
    never_ran(world, answers)


@row(20, "SIGSTOP of the broker", "S", quick=True)
def broker_frozen(world: RabbitMQWorld) -> None:
    world.broker.pause()
    try:
        with refusing(world) as answers:
            pass
    finally:
        world.broker.resume()
    never_ran(world, answers)


@row(21, "memory alarm of the broker", "S")
def memory_alarm(world: RabbitMQWorld) -> None:
    task = world.running(seconds=3)
    world.broker.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        with refusing(world) as answers:
            pass
        completed_by(world, task, 1)
    finally:
        world.broker.ctl("set_vm_memory_high_watermark", "0.4")
    never_ran(world, answers)


@row(22, "disk alarm of the broker", "S")
def disk_alarm(world: RabbitMQWorld) -> None:
    world.broker.ctl("set_disk_free_limit", "100000GB")
    try:
        with refusing(world) as answers:
            pass
    finally:
        world.broker.ctl("set_disk_free_limit", "50MB")
    never_ran(world, answers)


@row(23, "queue deleted", "S")
def queue_deleted(world: RabbitMQWorld) -> None:
    with world.only(None):
        task = world.queued()
        with world.fault():
            world.broker.ctl("delete_queue", LANES[0])
            repeat_until(world.submit, lambda a: a.status in (202, 503), 10, "an answer")
    repeat_until(world.submit, lambda a: a.status == 202, 30, "submits are accepted again")
    # its message went with the queue: the janitor finds that no lane holds it
    world.settled(task, "COMPLETED")


@row(24, "queue full", "S")
def queue_full(world: RabbitMQWorld) -> None:
    with world.only(None):
        world.broker.ctl("set_policy", "full", "^text_generation_tasks$", '{"max-length": 3}')
        try:
            with refusing(world) as answers:
                repeat_until(world.submit, _is_refusal, 30, "the queue is full")
        finally:
            world.broker.ctl("clear_policy", "full")
    never_ran(world, answers)


@row(25, "an attempt longer than the broker's consumer time-out", "R")
def consumer_timeout(world: RabbitMQWorld) -> None:
    with world.broker.consumer_timeout(4000):
        # only channels that are opened from now on know of it
        world.broker.ctl("close_all_connections", "test")
        world.settled(repeat_until(world.submit, lambda a: a.status == 202, 30, "submits are accepted"))
        with world.fault():
            task = world.running(seconds=9)
            record = world.settled(task, "COMPLETED")
    world.broker.ctl("close_all_connections", "test")
    assert record["failures"] <= 1


@row(26, "the network swallows what the web app sends to the broker", "S", quick=True)
def web_cut_off(world: RabbitMQWorld) -> None:
    with world.web_proxy.silent(), refusing(world) as answers:
        pass
    world.web_proxy.cut()
    never_ran(world, answers)


@row(27, "the network swallows what workers and broker send each other for 10 s", "R")
def worker_cut_off(world: RabbitMQWorld) -> None:
    task = world.running(seconds=5)
    with world.fault():
        with world.worker_proxy.silent():
            time.sleep(10)  # part of the fault
        world.worker_proxy.cut()
    record = world.settled(task, "COMPLETED")
    assert record["attempt"] == 1


@row(28, "300 ms of latency and 5 kB/s on every way to the broker", "S, R")
def slow_network(world: RabbitMQWorld) -> None:
    task = world.running(seconds=3)
    with world.fault(), world.web_proxy.slow(0.3, 5000), world.worker_proxy.slow(0.3, 5000):
        answer = repeat_until(world.submit, lambda a: a.status == 202, 30, "a submit is accepted")
        assert answer.took_s <= 10
        world.settled(answer)
    completed_by(world, task, 1)


@row(43, "messages that are no tasks", "Q", quick=True)
def poison(world: RabbitMQWorld) -> None:
    bodies = [b"5", b"{", b"\xff\xfe", b'"text"', b"[[], {}, {}]", b"null"]
    pids = {node: world.pid_of(node) for node in world.nodes()}
    before = world.queue_depths().get(f"{LANES[0]}.dead", 0)
    with world.fault(), Connection(world.env["CELERY_BROKER_URL"]) as connection:
        producer = connection.Producer()
        for body in bodies:
            producer.publish(
                body,
                exchange="",
                routing_key=LANES[0],
                content_type="application/json",
                content_encoding="utf-8",
            )
    wait_until(
        lambda: world.queue_depths().get(f"{LANES[0]}.dead", 0) >= before + len(bodies),
        TAKE_OVER_S,
        "all are among the dead letters",
    )
    assert {node: world.pid_of(node) for node in world.nodes()} == pids, "no worker was lost to them"


@row(48, "Flower killed and started again", "any")
def flower_killed(world: RabbitMQWorld) -> None:
    task = world.running(seconds=3)
    with world.fault():
        os.killpg(world.flower.pid, signal.SIGKILL)
        completed_by(world, task, 1)
    world.ensure()
    world.flower.wait_ready()
