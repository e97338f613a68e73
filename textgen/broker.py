"""The broker's queues, what the broker at hand can do, and how a message is published to it.

RabbitMQ holds waits and dead letters itself. Redis as a broker has neither confirms nor delay
queues nor dead-lettering: waits are then left to the outbox, and a publish is its own confirm.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from amqp.exceptions import AMQPError
from kombu import Exchange, Queue
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from textgen.errors import BrokerUnavailable, ConfigurationError
from textgen.settings import Settings

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Producer

#: Seconds of the delay queues: any wait is a sum of them, the largest first.
WAITS_S = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
#: Deliveries of one message before RabbitMQ gives up on it: a backstop only, since kills and cold
#: stops of workers count as well. The cap on attempts is the store's.
DELIVERY_LIMIT = 50
#: Milliseconds a dead letter is kept: a week.
DEAD_TTL_MS = 7 * 24 * 3600 * 1000
#: Dead letters kept.
DEAD_LENGTH = 10_000
#: What may be wrong with a broker when it is spoken to, RabbitMQ or Redis.
ERRORS = (KombuError, AMQPError, RedisError, OSError)


def is_rabbitmq(settings: Settings) -> bool:
    """Whether the broker is RabbitMQ, rather than Redis."""
    return not settings.broker.startswith(("redis", "rediss", "valkey"))


def transport_options(settings: Settings) -> dict[str, Any]:
    """The transport's options: every step of a publish bounded, nothing repeated blindly."""
    timeout = settings.publish_timeout_s
    if is_rabbitmq(settings):
        return {
            "confirm_publish": True,
            "read_timeout": timeout,
            "write_timeout": timeout,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
        }
    return {
        # A message that nobody acknowledges is delivered again after this; workers renew theirs.
        "visibility_timeout": settings.lease_s,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # How long a killed worker can keep others from looking for such messages, in seconds.
        "unacked_mutex_expire": 10,
        "priority_steps": list(range(10)),
        "queue_order_strategy": "round_robin",
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout * 2,
        "socket_keepalive": True,
        "health_check_interval": 30,
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
    }


def transport_priority(settings: Settings, priority: int) -> int:
    """Map a priority (9 most urgent) to the broker's: Redis serves 0 first."""
    return priority if is_rabbitmq(settings) else 9 - priority


# Queues


def _arguments(settings: Settings, **more: Any) -> dict[str, Any] | None:
    if not is_rabbitmq(settings):
        return None
    return {"x-queue-type": settings.queue_type, **more}


def dead_exchange(settings: Settings) -> Exchange:
    """Where rejected messages go, by whatever lane they came."""
    return Exchange(f"{settings.queue}.dlx", type="fanout", durable=True)


def lanes(settings: Settings) -> list[Queue]:
    """The queues of the two lanes, which every worker consumes."""
    more: dict[str, Any] = {
        "x-dead-letter-exchange": dead_exchange(settings).name,
        "x-max-length": settings.queue_max_length,
        "x-overflow": "reject-publish",
    }
    if settings.queue_type == "quorum":
        more |= {"x-delivery-limit": DELIVERY_LIMIT, "x-dead-letter-strategy": "at-least-once"}
    else:
        more["x-max-priority"] = 9
    return [
        Queue(
            name,
            Exchange(settings.queue, type="direct", durable=True),
            routing_key=name,
            durable=True,
            queue_arguments=_arguments(settings, **more),
        )
        for name in (settings.queue, settings.bulk_queue)
    ]


def dead_letters(settings: Settings) -> Queue:
    """Where dead letters arrive, until the janitor has written down why."""
    return Queue(
        f"{settings.queue}.dlx",
        dead_exchange(settings),
        durable=True,
        queue_arguments=_arguments(
            settings, **{"x-max-length": settings.queue_max_length, "x-overflow": "reject-publish"}
        ),
    )


def dead(settings: Settings) -> Queue:
    """Where dead letters stay; nothing consumes it. The oldest make room for the newest."""
    name = f"{settings.queue}.dead"
    arguments = {"x-max-length": DEAD_LENGTH, "x-overflow": "drop-head", "x-message-ttl": DEAD_TTL_MS}
    return Queue(
        name,
        Exchange(settings.queue, type="direct", durable=True),
        routing_key=name,
        durable=True,
        queue_arguments=_arguments(settings, **arguments),
    )


def wait_name(settings: Settings, seconds: int) -> str:
    """The name of the exchange and the queue in which messages wait `seconds`."""
    return f"{settings.queue}.wait.{seconds}"


def waits(settings: Settings) -> list[Queue]:
    """The delay queues: a message keeps its routing key, which names the lane it returns to."""
    if not is_rabbitmq(settings):
        return []
    more: dict[str, Any] = {
        "x-dead-letter-exchange": "",
        "x-max-length": settings.queue_max_length,
        "x-overflow": "reject-publish",
    }
    if settings.queue_type == "quorum":
        more["x-dead-letter-strategy"] = "at-least-once"
    return [
        Queue(
            wait_name(settings, seconds),
            Exchange(wait_name(settings, seconds), type="fanout", durable=True),
            durable=True,
            queue_arguments=_arguments(settings, **more, **{"x-message-ttl": seconds * 1000}),
        )
        for seconds in WAITS_S
    ]


def declare(connection: Any, settings: Settings) -> None:
    """Declare all that workers and waits need.

    Raises:
        ConfigurationError: A queue exists with other arguments; says which and what to do.
    """
    for queue in [*lanes(settings), dead_letters(settings), dead(settings), *waits(settings)]:
        try:
            with connection.channel() as channel:
                queue(channel).declare()
        except connection.channel_errors as exc:
            if "inequivalent" not in str(exc):
                raise
            raise ConfigurationError(
                f"queue {queue.name!r} exists with other arguments: delete it once it is empty, set "
                "TEXT_GENERATION_QUEUE_TYPE and TEXTGEN_QUEUE_MAX_LENGTH as they were, or choose "
                "another TEXT_GENERATION_QUEUE"
            ) from exc


def wait_route(settings: Settings, delay_s: float) -> dict[str, Any]:
    """Publish options that make a message wait: the largest delay queue within `delay_s`.

    What is left of the wait is waited when the message returns before it is due.
    """
    seconds = max((wait for wait in WAITS_S if wait <= delay_s), default=WAITS_S[0])
    queue = next(q for q in waits(settings) if q.name == wait_name(settings, seconds))
    return {"exchange": queue.exchange.name, "exchange_type": "fanout", "declare": [queue]}


def dead_route(settings: Settings) -> dict[str, Any]:
    """Publish options that send a message to the dead letters."""
    arrivals = dead_letters(settings)
    return {"exchange": arrivals.exchange.name, "exchange_type": "fanout", "declare": [arrivals]}


# Publishing


@contextmanager
def producer(app: Celery, settings: Settings) -> Iterator[Producer]:
    """Lend a producer for one publish, bounded in time.

    After any error its connection is thrown away: what it still holds cannot be trusted.

    Raises:
        BrokerUnavailable: No producer was free in time, or publishing failed.
    """
    pool = app.producer_pool
    try:
        lent = pool.acquire(block=True, timeout=settings.publish_timeout_s)
    except ERRORS as exc:
        raise BrokerUnavailable(f"the broker cannot be reached ({type(exc).__name__})") from exc
    try:
        yield lent
    except ERRORS as exc:
        _discard(lent)
        raise BrokerUnavailable(f"the broker did not take the message: {_reason(exc)}") from exc
    finally:
        lent.release()


def _discard(lent: Producer) -> None:
    """Cut the producer's connection without asking the broker, which may hang."""
    connection = lent.__connection__
    transport = getattr(connection, "_connection", None)
    sock = getattr(getattr(transport, "transport", None), "sock", None)
    if sock is not None:
        sock.close()
    connection.collect()


def _reason(exc: BaseException) -> str:
    if "NO_ROUTE" in str(exc):
        return "its queue does not exist"
    if type(exc).__name__ == "MessageNacked":
        return "its queue is full or refuses"
    if isinstance(exc, OperationalError) and exc.__cause__ is not None:
        exc = exc.__cause__
    return type(exc).__name__


def limits(connection: Any, settings: Settings) -> list[str]:
    """What the broker at hand cannot do, a sentence each."""
    if not is_rabbitmq(settings):
        return []
    properties = getattr(connection.connection, "server_properties", {}) or {}
    version = str(properties.get("version", "0"))
    if settings.queue_type == "quorum" and int(version.split(".")[0]) < 4:
        return [
            f"RabbitMQ {version} has no priorities on quorum queues: tasks run in the order of arrival. "
            "RabbitMQ 4 has two levels there, TEXT_GENERATION_QUEUE_TYPE=classic has ten."
        ]
    return []


def renew_deliveries(task_consumer: Any, settings: Settings) -> None:
    """Keep Redis from delivering again what this worker holds.

    The transport gives a message to another worker when its entry in `unacked_index` is older than
    the visibility time-out, running or not. RabbitMQ needs nothing of the kind.
    """
    if is_rabbitmq(settings):
        return
    channel = task_consumer.channel
    held = list(channel.qos._delivered)
    if held:
        with channel.conn_or_acquire() as client:
            client.zadd(channel.unacked_index_key, dict.fromkeys(held, time.time()), xx=True)


def reach(app: Celery, settings: Settings) -> None:
    """Connect to the broker, bounded in time.

    Raises:
        BrokerUnavailable: It cannot be reached, or does not answer.
    """
    try:
        with app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=settings.publish_timeout_s)
            connection.default_channel  # noqa: B018 - opening a channel is the question
    except ERRORS as exc:
        raise BrokerUnavailable(f"the broker cannot be reached ({type(exc).__name__})") from exc


def depths(app: Celery, settings: Settings) -> dict[str, int]:
    """Messages ready in each lane and among the dead letters.

    Raises:
        BrokerUnavailable: The broker does not answer.
    """
    found = {}
    names = [settings.queue, settings.bulk_queue, f"{settings.queue}.dead"]
    try:
        with app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=settings.publish_timeout_s)
            for name in names:
                try:
                    with connection.channel() as channel:
                        found[name] = int(channel.queue_declare(name, passive=True).message_count)
                except connection.channel_errors:
                    found[name] = 0
    except ERRORS as exc:
        raise BrokerUnavailable(f"the broker cannot be reached ({type(exc).__name__})") from exc
    return found
