"""The broker's exchanges and queues: lanes, delay queues and dead letters.

RabbitMQ holds waits and dead letters itself. Redis as a broker has neither, and gets only the queues
that it can serve: waits are then left to the outbox, dead-lettering to the consumer.
"""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue

from textgen.errors import ConfigurationError
from textgen.lanes import every
from textgen.settings import Settings

#: Seconds of the delay queues: any wait is a sum of them, the largest first.
WAITS_S = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
#: Deliveries of one message before RabbitMQ gives up on it: a backstop only, since kills and cold
#: stops of workers count as well. The cap on attempts is the store's.
DELIVERY_LIMIT = 50
#: Milliseconds a dead letter is kept: a week.
DEAD_TTL_MS = 7 * 24 * 3600 * 1000
#: Milliseconds after which a delivery of a webhook that no worker took is forgotten here.
WEBHOOKS_TTL_MS = 60_000
#: Dead letters kept; deliveries of webhooks that wait for a worker.
DEAD_LENGTH = 10_000


def is_rabbitmq(settings: Settings) -> bool:
    """Whether the broker is RabbitMQ, rather than Redis."""
    return not settings.broker.startswith(("redis", "rediss", "valkey"))


def _arguments(settings: Settings, **more: Any) -> dict[str, Any] | None:
    if not is_rabbitmq(settings):
        return None
    return {"x-queue-type": settings.queue_type, **more}


def held_s(settings: Settings, consumed: int) -> float:
    """Seconds that a worker may hold a message: it reserves as many of each lane as it has slots, times
    the prefetch count, so that a message waits for those before it and then runs itself.

    Args:
        settings: The settings.
        consumed: How many lanes the worker consumes.
    """
    return consumed * settings.prefetch_count * (settings.attempt_timeout_s + settings.attempt_margin_s)


def refuse_timeout(settings: Settings, consumed: int) -> None:
    """Make sure that RabbitMQ does not take messages back that are still worked on.

    Raises:
        ConfigurationError: It would; its consumers would be cut off, and the tasks run again.
    """
    held = held_s(settings, consumed)
    if is_rabbitmq(settings) and held >= settings.consumer_timeout_s:
        raise ConfigurationError(
            f"a worker of {consumed} lanes may hold a message for {held:.0f} s, and RabbitMQ takes it back "
            f"after {settings.consumer_timeout_s} s: lower TEXTGEN_ATTEMPT_TIMEOUT_S or PREFETCH_COUNT, have "
            "it consume fewer lanes (-Q), or raise TEXTGEN_CONSUMER_TIMEOUT_S"
        )


def dead_exchange(settings: Settings) -> Exchange:
    """Where rejected messages go, by whatever lane they came.

    A topic exchange, because the Redis transport keeps nothing of what goes to a fanout.
    """
    return Exchange(f"{settings.queue}.dlx", type="topic", durable=True)


def lanes(settings: Settings) -> list[Queue]:
    """The queues of all lanes. A worker consumes them all, unless it is told which."""
    more: dict[str, Any] = {
        "x-dead-letter-exchange": dead_exchange(settings).name,
        "x-max-length": settings.queue_max_length,
        "x-overflow": "reject-publish",
        "x-consumer-timeout": settings.consumer_timeout_s * 1000,
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
        for name in (lane.queue(settings) for lane in every(settings))
    ]


def lane_route(settings: Settings, queue: str) -> dict[str, Any]:
    """Publish options that send a message to the queue of a lane.

    By the lanes' own exchange: the default one, which Celery would take, would oblige RabbitMQ's users to
    have permission to publish to any queue.
    """
    return {"queue": queue, "exchange": settings.queue} if is_rabbitmq(settings) else {"queue": queue}


def dead_letters(settings: Settings) -> Queue:
    """Where dead letters arrive, until the janitor has written down why."""
    return Queue(
        f"{settings.queue}.dlx",
        dead_exchange(settings),
        routing_key="#",
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


def webhooks(settings: Settings) -> Queue:
    """Where deliveries of webhooks wait for a sender. What is lost here is published again."""
    name = f"{settings.queue}.webhooks"
    arguments = {"x-max-length": DEAD_LENGTH, "x-overflow": "drop-head", "x-message-ttl": WEBHOOKS_TTL_MS}
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
    kept = [dead_letters(settings), dead(settings), webhooks(settings)]
    for queue in [*lanes(settings), *kept, *waits(settings)]:
        try:
            with connection.channel() as channel:
                queue(channel).declare()
        except connection.channel_errors as exc:
            if "inequivalent" not in str(exc):
                raise
            raise ConfigurationError(
                f"queue {queue.name!r} exists with other arguments: delete it once it is empty, set "
                "TEXT_GENERATION_QUEUE_TYPE, TEXTGEN_QUEUE_MAX_LENGTH and TEXTGEN_CONSUMER_TIMEOUT_S as they "
                "were, or choose another TEXT_GENERATION_QUEUE"
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
    return {"exchange": arrivals.exchange.name, "exchange_type": "topic", "declare": [arrivals]}
