"""RabbitMQ takes a message back from a worker that holds it too long: no attempt may come to that, and
if one does, the task still has one result.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.application import application
from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WorkerProcess
from tests.services import PrivateRabbitMQ

#: Settings of an attempt that may take 8 s.
EIGHT_S = {"TEXTGEN_ATTEMPT_TIMEOUT_S": 8, "TEXTGEN_ATTEMPT_MARGIN_S": 1, "TEXTGEN_LEASE_S": 2}
#: An attempt of 6 s.
SIX_S = {"mock": {"delay_s": 0.1, "tokens": 60}}
EX_CONFIG = 78


def test_a_worker_refuses_attempts_that_rabbitmq_would_interrupt(
    stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    worker = start_worker(stack_env("rabbitmq", **EIGHT_S, TEXTGEN_CONSUMER_TIMEOUT_S=18))
    assert worker.wait() == EX_CONFIG
    assert "may hold a message for 18 s, and RabbitMQ takes it back after 18 s" in worker.log()


def test_the_prefetch_count_counts(
    stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    limits = {**EIGHT_S, "TEXTGEN_CONSUMER_TIMEOUT_S": 19}
    start_worker(stack_env("rabbitmq", **limits)).wait_ready()
    assert start_worker(stack_env("rabbitmq", **limits, PREFETCH_COUNT=2)).wait() == EX_CONFIG


def test_a_worker_warns_where_rabbitmqs_own_timeout_is_what_holds(
    rabbitmq: PrivateRabbitMQ,
    stack_env: Callable[..., Environment],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    warning = "so its own consumer_timeout must be longer"
    shipped = start_worker(stack_env("rabbitmq")).wait_ready()
    longer = start_worker(stack_env("rabbitmq", TEXTGEN_ATTEMPT_TIMEOUT_S=900)).wait_ready()
    assert warning not in shipped.log()
    assert (warning in longer.log()) is not rabbitmq.has_queue_timeouts


def test_an_attempt_longer_than_rabbitmqs_own_timeout_is_left_alone_by_a_queues(
    rabbitmq: PrivateRabbitMQ,
    stack_env: Callable[..., Environment],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    env = stack_env("rabbitmq", **EIGHT_S)
    with rabbitmq.consumer_timeout(2000, of_queues=False), application(env):
        from textgen import client
        from textgen.tasks import generate

        worker = start_worker(env).wait_ready()
        record = client.wait(generate.delay("Hello", engine="mock", max_tokens=99, metadata=SIX_S).id, 40)
    assert (record.status, record.failures) == ("COMPLETED", 0)
    # RabbitMQ 3.10 knows no other timeout than its own
    assert ("PRECONDITION_FAILED" in worker.log()) is not rabbitmq.has_queue_timeouts


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_task_whose_message_was_taken_back_has_one_result(
    pool: str,
    rabbitmq: PrivateRabbitMQ,
    stack_env: Callable[..., Environment],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    env = stack_env("rabbitmq", **EIGHT_S)
    vhost = urlsplit(env["CELERY_BROKER_URL"]).path.removeprefix("/")
    with rabbitmq.consumer_timeout(2000, vhost), application(env):
        from textgen import client
        from textgen.tasks import generate

        worker = start_worker(env, pool, 2).wait_ready()
        task_id = generate.delay("Hello", engine="mock", max_tokens=99, metadata=SIX_S).id
        wait_until(lambda: "PRECONDITION_FAILED" in worker.log(), 20, "RabbitMQ takes the message back")
        assert client.get(task_id).status == "PROCESSING"
    with application(env):
        from textgen import client

        start_worker(env, pool, 2).wait_ready()  # what supervises a worker starts another
        record = client.wait(task_id, 40)
        log = [event for event in client.stream(task_id) if event is not None]
        wait_until(lambda: sum(rabbitmq.queues(vhost).values()) == 0, 40, "no message is left")
    assert (record.status, record.failures) == ("COMPLETED", 0)
    states = [event.data["status"] for event in log if event.type == "state"]
    assert states.count("COMPLETED") == 1
    last = [event.data["text"] for event in log if event.type == "chunk" and event.attempt == record.attempt]
    assert "".join(last) == record.result
