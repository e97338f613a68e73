"""A submit is never in doubt: whatever the broker does, it is confirmed or refused within bounds."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import redis

from tests import environment
from tests.environment import new_folder, of_process
from tests.processes import wait_until
from tests.programs import WorkerProcess
from tests.services import PrivateRabbitMQ, PrivateRedis

#: Seconds in which every submit has to be answered.
BOUND_S = 10

#: A client that submits once for each line it reads, and says how it went.
CLIENT = """
import sys
from textgen.errors import TextgenError
from textgen.tasks import generate
for line in sys.stdin:
    try:
        print("accepted", generate.delay("hello").id, flush=True)
    except TextgenError as exc:
        print(type(exc).__name__, exc, flush=True)
"""


class Client:
    """A process that keeps its connections from one submit to the next."""

    def __init__(self, env: environment.Environment) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env=of_process(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def submit(self) -> tuple[str, str]:
        """Submit once; returns the outcome and what goes with it, or fails past the bound."""
        began = time.monotonic()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        outcome, _, rest = self.process.stdout.readline().strip().partition(" ")
        assert time.monotonic() - began < BOUND_S
        return outcome, rest

    def close(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def broker() -> Iterator[PrivateRabbitMQ]:
    with PrivateRabbitMQ(new_folder("broker")) as server:
        yield server


@pytest.fixture
def store(redis_server: PrivateRedis) -> redis.Redis:
    client = redis_server.client(redis_server.new_database())
    yield client
    client.close()


@pytest.fixture
def env(broker: PrivateRabbitMQ, store: redis.Redis) -> environment.Environment:
    options = store.connection_pool.connection_kwargs
    url = f"redis://{options['host']}:{options['port']}/{options['db']}"
    return environment.variables(broker.url_of(broker.new_vhost()), url, new_folder("submit"))


@pytest.fixture
def client(env: environment.Environment) -> Iterator[Client]:
    """A client that has submitted once, so that its connection is warm."""
    made = Client(env)
    assert made.submit()[0] == "accepted"
    yield made
    made.close()


def _records(store: redis.Redis) -> int:
    return len(store.keys("task:*"))


def _all_completed(store: redis.Redis) -> bool:
    return all('"COMPLETED"' in store.get(name) for name in store.keys("task:*"))


def _runs(worker: WorkerProcess) -> list[str]:
    return re.findall(r"generate\[(\S{36})\] succeeded", worker.log())


def _assert_refused(client: Client, store: redis.Redis) -> None:
    before = _records(store)
    assert client.submit()[0] == "BrokerUnavailable"
    assert _records(store) == before, "nothing of a refused submit is visible"
    assert store.zcard("outbox") == 0, "and nothing will publish it later"


def _assert_accepts_again(client: Client) -> None:
    wait_until(lambda: client.submit()[0] == "accepted", 30, "submits are accepted again")


def test_a_frozen_broker_refuses_in_time(client: Client, broker: PrivateRabbitMQ, store: redis.Redis) -> None:
    broker.pause()
    try:
        _assert_refused(client, store)
        _assert_refused(client, store)
    finally:
        broker.resume()
    _assert_accepts_again(client)


def test_a_broker_out_of_memory_refuses_in_time(
    client: Client, broker: PrivateRabbitMQ, store: redis.Redis
) -> None:
    broker.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        wait_until(lambda: client.submit()[0] == "BrokerUnavailable", 30, "the alarm is raised")
        _assert_refused(client, store)
    finally:
        broker.ctl("set_vm_memory_high_watermark", "0.4")
    _assert_accepts_again(client)


def test_a_message_of_a_refused_submit_that_the_broker_kept_never_runs(
    client: Client, env: environment.Environment, broker: PrivateRabbitMQ, store: redis.Redis, start_worker
) -> None:
    broker.pause()
    try:
        _assert_refused(client, store)
    finally:
        broker.resume()
    worker = start_worker(env).wait_ready()
    wait_until(lambda: client.submit()[0] == "accepted", 30, "submits are accepted again")
    # the ghost was queued before what is accepted now, so it has had its turn when that is done
    wait_until(lambda: _all_completed(store), 60, "all that was accepted is completed")
    # a worker says so after it has written the record
    wait_until(lambda: len(_runs(worker)) >= _records(store), 10, "the worker has said so")
    assert len(_runs(worker)) == _records(store), "what ran is what was accepted, and nothing else"


def test_a_queue_that_was_deleted_refuses_once_and_is_declared_again(
    client: Client, env: environment.Environment, broker: PrivateRabbitMQ, store: redis.Redis
) -> None:
    vhost = env["CELERY_BROKER_URL"].rpartition("/")[2]
    broker.ctl("delete_queue", "-p", vhost, "text_generation_tasks")
    _assert_refused(client, store)
    assert client.submit()[0] == "accepted"


def test_a_connection_that_the_broker_closed_costs_no_submit(
    client: Client, broker: PrivateRabbitMQ, store: redis.Redis
) -> None:
    broker.ctl("close_all_connections", "test")
    assert client.submit()[0] == "accepted"


def test_a_broker_that_is_down_refuses_in_time(
    client: Client, broker: PrivateRabbitMQ, store: redis.Redis
) -> None:
    # not killed: RabbitMQ 3.10 finds no leader for a quorum queue that it was killed right after making
    broker.stop()
    try:
        _assert_refused(client, store)
        _assert_refused(client, store)
    finally:
        broker.start()
    _assert_accepts_again(client)


def test_a_store_that_is_down_refuses_and_nothing_is_queued(env: environment.Environment) -> None:
    client = Client(env | {"REDIS_URL": "redis://127.0.0.1:1/0"})
    began = time.monotonic()
    assert client.submit()[0] == "StoreUnavailable"
    assert time.monotonic() - began < BOUND_S / 2
    client.close()


def test_an_entry_that_a_killed_submitter_left_is_published(
    env: environment.Environment, broker: PrivateRabbitMQ, store: redis.Redis, start_worker
) -> None:
    """Given a submitter that dies between its record and its publish."""
    dies = "import os; from textgen.hooks import GenerateTask; GenerateTask.send = lambda *a: os._exit(9)\n"
    code = dies + "from textgen.tasks import generate; generate.delay('hello')"
    assert subprocess.run([sys.executable, "-c", code], env=of_process(env), timeout=60).returncode == 9
    [task_id] = store.zrange("outbox", 0, -1)
    # its turn comes half a minute later: let Redis have it now
    store.zadd("outbox", {task_id: 0})
    start_worker(env).wait_ready()
    wait_until(lambda: "COMPLETED" in store.get(f"task:{task_id}"), 30, "it completes")
    assert store.zcard("outbox") == 0
