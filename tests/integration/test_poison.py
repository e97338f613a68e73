"""Messages that no client of ours would send, put straight into the queue.

Each ends exactly once among the dead letters with the reason in a header, its content is nowhere in
the worker's log, and the worker goes on as if nothing had been. Bare Celery acknowledges some of
them with a log line, prints the content of others and dies of a few.
"""

from __future__ import annotations

import base64
import gzip
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import redis
from kombu import Connection

from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WorkerProcess

QUEUE = "text_generation_tasks"
DEAD = f"{QUEUE}.dead"
REASON = "x-textgen-reason"
#: Header that names the bad message, in all but the one without headers.
MARK = "test-case"
#: Stands in every bad message, and may stand in no line of the log.
CANARY = "c4n4ry"
#: Seconds until all bad messages have been sorted out.
PATIENCE_S = 30


def task_id() -> str:
    return str(uuid.uuid4())


def headers(**changes: Any) -> dict[str, Any]:
    """The headers of a good message."""
    id_ = task_id()
    good = {"lang": "py", "task": "textgen.tasks.generate", "id": id_, "root_id": id_, "parent_id": None}
    return {**good, "group": None, "retries": 0, **changes}


def without(name: str) -> dict[str, Any]:
    """The headers of a good message but for one."""
    return {key: value for key, value in headers().items() if key != name}


def body(*args: Any, **kwargs: Any) -> bytes:
    """The body of a message with these arguments; good ones, if none are given."""
    options = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    given = args if args or kwargs else (f"Hello {CANARY}",)
    return json.dumps([given, kwargs, options]).encode()


@dataclass(frozen=True)
class Bad:
    """A message that must be dead-lettered."""

    name: str
    #: Words of the reason.
    reason: str
    body: bytes = field(default_factory=body)
    headers: dict[str, Any] | None = field(default_factory=headers)
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"


BAD = [
    Bad("not JSON", "not JSON", f"Hello {CANARY}".encode()),
    Bad("half of a JSON", "not JSON", f'[["Hello {CANARY}"], {{'.encode()),
    Bad("no UTF-8", "not JSON", b'[["\xff\xfe\xc3 ' + CANARY.encode() + b'"], {}, {}]'),
    Bad("empty", "not JSON", b""),
    Bad("too deep", "not JSON", b"[" * 100_000),
    Bad("a number", "is not [", b"5"),
    Bad("null", "is not [", b"null"),
    Bad("a string", "is not [", f'"{CANARY}"'.encode()),
    Bad("an object", "is not [", json.dumps({"prompt": CANARY}).encode()),
    Bad("two parts", "is not [", json.dumps([[CANARY], {}]).encode()),
    Bad("arguments that are no list", "is not [", json.dumps([CANARY, {}, {}]).encode()),
    Bad("a bad gzip header", "cannot be decoded", headers=headers(compression="application/x-gzip")),
    Bad("half of a gzip", "cannot be decoded", gzip.compress(body())[:40],
        headers=headers(compression="application/x-gzip")),
    Bad("an unknown compression", "cannot be decoded", headers=headers(compression=f"x-{CANARY}")),
    Bad("pickle", "content type", base64.b64decode(b"gASVDgAAAAAAAABdlF2UfZR9lGUu") + CANARY.encode(),
        content_type="application/x-python-serialize", content_encoding="binary"),
    Bad("plain text", "content type", content_type="text/plain"),
    Bad("no content type", "content type", content_type=None, content_encoding=None),
    Bad("no headers", "no task header", headers=None),
    Bad("an unknown task", "not known", headers=headers(task=f"tasks.{CANARY}")),
    Bad("a task that is a number", "no task header", headers=headers(task=5)),
    Bad("no id", "no id", headers=without("id")),
    Bad("an id that is null", "no id", headers=headers(id=None)),
    Bad("an id that is a number", "no id", headers=headers(id=5)),
    Bad("an upper-case id", "lower-case UUID", headers=headers(id=task_id().upper())),
    Bad("an id of other letters", "lower-case UUID", headers=headers(id=f"tâche-{CANARY}")),
    Bad("an eta that is no time", "eta", headers=headers(eta=CANARY)),
    Bad("an expiry that is no time", "expires", headers=headers(expires=CANARY)),
    Bad("a time limit that is no number", "timelimit", headers=headers(timelimit=[CANARY, None])),
    Bad("retries that are no number", "retries", headers=headers(retries=CANARY)),
    Bad("no arguments", "no valid request", json.dumps([[], {}, {}]).encode()),
    Bad("too many arguments", "no valid request", body("Hello", CANARY)),
    Bad("an unknown argument", "no valid request", body("Hello", nonsense=CANARY)),
    Bad("a prompt that is a number", "no valid request", body(5, metadata={"x": CANARY})),
    Bad("a blank prompt", "no valid request", body(" \u200b ", metadata={"x": CANARY})),
    Bad("an unknown engine", "no valid request", body("Hello", engine=CANARY)),
    Bad("an argument of 5 MB", "no valid request", body("Hello", nonsense=CANARY * 800_000)),
    Bad("a textgen header of words", "textgen header", headers=headers(textgen=CANARY)),
    Bad("a textgen header without version", "textgen header", headers=headers(textgen={"x": CANARY})),
    Bad("a deadline of words", "deadline_ms",
        headers=headers(textgen={"v": 1, "deadline_ms": CANARY, "ttl_ms": 1000})),
    Bad("engines tried of words", "no usable tried",
        headers=headers(textgen={"v": 1, "deadline_ms": 1, "ttl_ms": 1000, "tried": [{"engine": CANARY}]})),
]  # fmt: skip


class Broker:
    """The queue as somebody sees it who knows nothing of Celery."""

    def __init__(self, url: str) -> None:
        self.connection = Connection(url)
        self.channel = self.connection.channel()

    def put(self, bad: Bad, priority: int = 0) -> None:
        message = self.channel.prepare_message(
            bad.body,
            priority=priority,
            content_type=bad.content_type,
            content_encoding=bad.content_encoding,
            headers=None if bad.headers is None else {**bad.headers, MARK: bad.name},
            properties={"delivery_mode": 2},
        )
        self.channel.basic_publish(message, exchange="", routing_key=QUEUE)

    def count(self, queue: str) -> int:
        try:
            with self.connection.channel() as channel:
                return int(channel.queue_declare(queue, passive=True).message_count)
        except self.connection.channel_errors:
            return 0  # in Redis an empty queue does not exist

    def take_all(self, queue: str) -> list[Any]:
        taken = []
        while (message := self.channel.basic_get(queue, no_ack=True)) is not None:
            taken.append(message)
        return taken


@pytest.fixture(scope="module", params=["rabbitmq", "valkey"])
def env(request: pytest.FixtureRequest, module_stack_env: Callable[..., Environment]) -> Environment:
    return module_stack_env(request.param)


@pytest.fixture(scope="module")
def worker(env: Environment, module_start_worker: Callable[..., WorkerProcess]) -> WorkerProcess:
    started = module_start_worker(env)
    started.wait_ready()
    return started


@pytest.fixture(scope="module")
def broker(env: Environment, worker: WorkerProcess) -> Iterator[Broker]:
    made = Broker(env["CELERY_BROKER_URL"])
    yield made
    made.connection.close()


@pytest.fixture(scope="module")
def store(env: Environment) -> redis.Redis:
    return redis.Redis.from_url(env["REDIS_URL"], decode_responses=True)


def record(store: redis.Redis, id_: str) -> dict[str, Any]:
    found = store.get(f"task:{id_}")
    return dict(json.loads(str(found))) if found else {}


def assert_works(broker: Broker, store: redis.Redis, worker: WorkerProcess) -> None:
    """A good message is worked off."""
    good = headers()
    broker.put(Bad("good", "", body("Hello", engine="mock"), headers=good))
    wait_until(lambda: record(store, good["id"]).get("status") == "COMPLETED", 20, "a good task completes")
    assert worker.is_alive


@pytest.fixture(scope="module")
def dead_letters(broker: Broker, worker: WorkerProcess) -> dict[str, list[Any]]:
    """Bad message → what stands among the dead letters for it, once all have been sorted out."""
    for bad in BAD:
        broker.put(bad)
    with suppress(AssertionError):  # each test says which message is not where it should be
        wait_until(lambda: broker.count(DEAD) >= len(BAD), PATIENCE_S, "all are dead letters")
    found: dict[str, list[Any]] = {bad.name: [] for bad in BAD}
    for message in broker.take_all(DEAD):
        found[(message.headers or {}).get(MARK, "no headers")].append(message)
    return found


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_message_is_dead_lettered_once_with_the_reason(
    bad: Bad, dead_letters: dict[str, list[Any]]
) -> None:
    (letter,) = dead_letters[bad.name]

    assert bad.reason in letter.headers[REASON]
    assert CANARY not in letter.headers[REASON]
    came = letter.body.encode() if isinstance(letter.body, str) else letter.body
    assert came == bad.body, "it can be looked at as it came"


def test_no_bad_message_shows_in_the_log_or_kills_the_worker(
    dead_letters: dict[str, list[Any]], broker: Broker, store: redis.Redis, worker: WorkerProcess
) -> None:
    assert_works(broker, store, worker)

    assert [broker.count(queue) for queue in (QUEUE, f"{QUEUE}.bulk", f"{QUEUE}.dlx")] == [0, 0, 0]
    log = worker.log()
    assert CANARY not in log
    assert "Traceback" not in log
    assert log.count(f"{worker.name}@localhost ready") == 1, "it was never started anew"


def test_a_bad_message_with_the_id_of_a_task_leaves_a_record_that_says_why(
    dead_letters: dict[str, list[Any]], store: redis.Redis
) -> None:
    (letter,) = dead_letters["an unknown argument"]

    failed = record(store, letter.headers["id"])

    assert (failed["status"], failed["error"]["type"]) == ("FAILED", "invalid_message")
    assert CANARY not in failed["error"]["message"]
    assert store.ttl(f"task:{letter.headers['id']}") > 0


def test_a_bad_message_whose_task_cannot_be_failed_holds_up_no_other(
    broker: Broker, store: redis.Redis, worker: WorkerProcess
) -> None:
    odd, other = headers(retries="none"), headers(retries="none")
    store.set(f"state:{{task:{odd['id']}}}", "something else")
    for bad in (odd, other):
        broker.put(Bad("odd", "", headers=bad))
    wait_until(lambda: broker.count(DEAD) == 2, 30, "both are dead letters")
    assert {letter.headers["id"] for letter in broker.take_all(DEAD)} == {odd["id"], other["id"]}
    assert record(store, other["id"])["status"] == "FAILED"


# Messages that are odd, and yet none of them is bad


def test_a_message_of_a_later_version_is_left_for_a_later_worker(
    broker: Broker, store: redis.Redis, worker: WorkerProcess
) -> None:
    later = headers(textgen={"v": 2, "deadline_ms": "in another form"})
    broker.put(Bad("later", "", headers=later))

    wait_until(lambda: "newer version" in worker.log(), 20, "the worker has seen it")
    assert_works(broker, store, worker)
    assert record(store, later["id"]) == {}
    assert broker.count(DEAD) == 0


@pytest.mark.parametrize(
    "odd",
    [
        Bad("with no more headers than it needs", "", headers={"task": "textgen.tasks.generate"}),
        Bad("with an encoding that there is not", "", content_encoding="x-nonsense"),
        Bad("with its prompt by name", "", body(prompt="Hello", engine="mock")),
    ],
    ids=lambda odd: odd.name,
)
def test_an_odd_message_of_a_foreign_producer_is_worked_off(
    odd: Bad, broker: Broker, store: redis.Redis, worker: WorkerProcess
) -> None:
    id_ = task_id()
    broker.put(replace(odd, headers={**(odd.headers or {}), "id": id_}), priority=255)

    wait_until(lambda: record(store, id_).get("status") == "COMPLETED", 20, "it completes")
    assert store.ttl(f"task:{id_}") > 0


def test_a_message_that_has_expired_leaves_a_record_that_says_so(
    broker: Broker, store: redis.Redis, worker: WorkerProcess
) -> None:
    for expires in ("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00"):
        late = headers(expires=expires)
        broker.put(Bad("expired", "", headers=late))
        wait_until(lambda: record(store, late["id"]).get("status") == "FAILED", 20, "it is FAILED")  # noqa: B023
        failed = record(store, late["id"])
        assert (failed["error"]["type"], failed["attempt"]) == ("deadline", 0)


def test_a_limit_that_celery_knows_is_kept_in_every_pool(
    broker: Broker, store: redis.Redis, worker: WorkerProcess
) -> None:
    """Given a pool of threads, where Celery's own does nothing."""
    slow = {"mock": {"delay_s": 0.1, "tokens": 300}}
    for limits in ([None, 1], [1, None], [30, 0.5]):
        limited = headers(timelimit=limits)
        broker.put(Bad("limited", "", body("Hello", max_tokens=1000, metadata=slow), limited))
        wait_until(lambda: record(store, limited["id"]).get("status") == "FAILED", 20, "it is FAILED")  # noqa: B023
        assert record(store, limited["id"])["error"]["type"] == "attempt_timeout"


def test_a_second_message_of_a_finished_task_does_not_run_it_again(
    broker: Broker, store: redis.Redis, worker: WorkerProcess
) -> None:
    twice = Bad("twice", "", body("Hello", engine="mock"), headers())
    assert twice.headers
    broker.put(twice)
    wait_until(lambda: record(store, twice.headers["id"]).get("status") == "COMPLETED", 20, "it completes")
    first = record(store, twice.headers["id"])

    broker.put(twice)
    broker.put(Bad("as a bad one", "", body("Hello", nonsense=CANARY), twice.headers))

    wait_until(lambda: broker.count(DEAD) == 1, 20, "the bad one is a dead letter")
    assert_works(broker, store, worker)
    assert record(store, twice.headers["id"]) == first
    broker.channel.queue_purge(DEAD)


@pytest.mark.parametrize("garbage", ["no envelope", "5", "null", "{}", '{"body": 5}', "[]"])
def test_what_is_no_message_at_all_is_dead_lettered_too_on_redis(
    garbage: str, stack_env: Callable[..., Environment], start_worker: Callable[..., WorkerProcess]
) -> None:
    env = stack_env("valkey")
    worker = start_worker(env).wait_ready()
    queues = redis.Redis.from_url(env["CELERY_BROKER_URL"])

    queues.lpush(QUEUE, garbage)

    broker = Broker(env["CELERY_BROKER_URL"])
    store = redis.Redis.from_url(env["REDIS_URL"], decode_responses=True)
    wait_until(lambda: broker.count(DEAD) == 1, 20, "it is a dead letter")
    assert_works(broker, store, worker)
