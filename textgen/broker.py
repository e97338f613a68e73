"""How the broker is spoken to: transport options, what it can do, and a publish bounded in time."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from amqp.exceptions import AccessRefused, AMQPError, MessageNacked, NotFound
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from textgen import lanes, queues
from textgen.errors import BrokerUnavailable
from textgen.settings import Settings

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection, Producer

#: What may be wrong with a broker when it is spoken to, RabbitMQ or Redis.
ERRORS = (KombuError, AMQPError, RedisError, OSError)

#: Seconds between the tries of a publish that RabbitMQ refused: the time in which a queue gets a leader.
REFUSED_PAUSES_S = (0.05, 0.2, 0.5)

#: Seconds after which RabbitMQ takes a message back where nobody says otherwise (its `consumer_timeout`).
CONSUMER_TIMEOUT_S = 1800


def transport_options(settings: Settings) -> dict[str, Any]:
    """The transport's options: every step of a publish bounded, nothing repeated blindly."""
    timeout = settings.publish_timeout_s
    if queues.is_rabbitmq(settings):
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
    """Map a priority (9 most urgent) to the broker's: Redis serves 0 first.

    RabbitMQ 4 counts all above 4 as urgent on a quorum queue (rabbitmq.com/docs/quorum-queues), and 5 is
    what a task has where nobody says otherwise: so all are one less there.
    """
    if not queues.is_rabbitmq(settings):
        return 9 - priority
    return max(0, priority - 1) if settings.queue_type == "quorum" else priority


@contextmanager
def producer(app: Celery, settings: Settings, given: Producer | None = None) -> Iterator[Producer]:
    """Lend a producer for one publish, bounded in time.

    After any error its connection is thrown away: what it still holds cannot be trusted.

    Args:
        app: Whose broker.
        settings: The settings.
        given: One that the caller holds already, as a group does while it submits its members. Its
            connection is used, if it is one of ours: a second one for each might never come.

    Raises:
        BrokerUnavailable: No connection was free in time, or publishing failed.
    """
    held = given.__connection__ if given is not None and _is_ours(given, settings) else None
    try:
        connection = _renewed(held) if held is not None else _acquire(app, settings)
    except ERRORS as exc:
        raise BrokerUnavailable(f"the broker cannot be reached: {_reason(exc)}") from exc
    try:
        yield app.amqp.Producer(connection)
    except ERRORS as exc:
        _discard(connection)
        raise BrokerUnavailable(f"the broker did not take the message: {_reason(exc)}") from exc
    finally:
        if held is None:
            connection.release()


def confirmed(publish: Callable[[], object]) -> None:
    """Publish, and again a moment later where RabbitMQ says that it did not take the message.

    So it does while a quorum queue has no leader: one that another connection is just declaring, or
    whose leader's node died. A queue that is full says the same, and is asked as often.
    """
    for pause_s in REFUSED_PAUSES_S:
        try:
            publish()
            return
        except ERRORS as exc:
            if not _is_refused(exc):
                raise
        time.sleep(pause_s)
    publish()


def _is_refused(exc: BaseException) -> bool:
    return isinstance(exc.__cause__ or exc, MessageNacked)


def _is_ours(given: Producer, settings: Settings) -> bool:
    """Whether a producer's connection is bounded in time and confirms, as all of ours."""
    options = given.__connection__.transport_options
    return all(options.get(name) == value for name, value in transport_options(settings).items())


def _acquire(app: Celery, settings: Settings) -> Connection:
    """Take a connection from the pool, which connects anew if the broker has closed it.

    Not a producer: the pool of those waits for a connection without any bound.
    """
    return _renewed(app.pool.acquire(block=True, timeout=settings.publish_timeout_s))


def _renewed(connection: Connection) -> Connection:
    if _is_closed(connection):
        _discard(connection)
    return connection


def _is_closed(connection: Connection) -> bool:
    """Whether the far end of an idle connection is gone. Nothing is sent to find out."""
    sock = _socket(connection)
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    try:
        while poll.poll(0):
            connection.drain_events(timeout=0.1)
    except TimeoutError:
        return False
    except ERRORS:
        return True
    return False


def _socket(connection: Connection) -> Any:
    """The socket to RabbitMQ, or None where there is none yet, or no RabbitMQ."""
    # not `transport`, which connects again where there is none
    return getattr(getattr(connection._connection, "_transport", None), "sock", None)


def _discard(connection: Connection) -> None:
    """Cut a connection without asking the broker, which may hang."""
    sock = _socket(connection)
    if sock is not None:
        sock.close()
    connection.collect()


def forbidden(exc: AccessRefused) -> str:
    """Say what RabbitMQ forbids to whom, and what to grant."""
    return f"{exc.reply_text}: check RABBITMQ_USER, grant what deploy/rabbitmq_users.sh grants"


def _reason(exc: BaseException) -> str:
    if "NO_ROUTE" in str(exc):
        return "its queue does not exist"
    if _is_refused(exc):
        return "its queue is full or refuses"
    if isinstance(exc, AccessRefused):
        return forbidden(exc)
    if isinstance(exc, OperationalError) and exc.__cause__ is not None:
        exc = exc.__cause__
    return type(exc).__name__


def limits(connection: Any, settings: Settings, consumed: int) -> list[str]:
    """What the broker at hand cannot do for a worker of so many lanes, a sentence each."""
    if not queues.is_rabbitmq(settings):
        return []
    properties = getattr(connection.connection, "server_properties", {}) or {}
    version = str(properties.get("version", "0"))
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    found = []
    if settings.queue_type == "quorum" and number < (4,):
        found.append(
            f"RabbitMQ {version} has no priorities on quorum queues: tasks run in the order of arrival. "
            "RabbitMQ 4 has two levels there, TEXT_GENERATION_QUEUE_TYPE=classic has ten."
        )
    held = queues.held_s(settings, consumed)
    if number < (3, 12) and held > CONSUMER_TIMEOUT_S:
        found.append(
            f"RabbitMQ {version} has no consumer timeout per queue: a message may be held for "
            f"{held:.0f} s here, so its own consumer_timeout must be longer."
        )
    return found


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
        raise BrokerUnavailable(f"the broker cannot be reached: {_reason(exc)}") from exc


def purge_dead(app: Celery, settings: Settings) -> None:
    """Delete all messages of the queue of dead letters.

    Raises:
        BrokerUnavailable: The broker does not answer.
    """
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=settings.publish_timeout_s)
            with suppress(NotFound):  # no worker has declared it yet
                connection.default_channel.queue_purge(queues.dead(settings).name)
    except ERRORS as exc:
        raise BrokerUnavailable(f"the broker cannot be reached: {_reason(exc)}") from exc


def depths(app: Celery, settings: Settings) -> dict[str, int]:
    """Messages ready in each lane and among the dead letters.

    Raises:
        BrokerUnavailable: The broker does not answer.
    """
    names = [lane.queue(settings) for lane in lanes.every(settings)]
    return _depths(app, settings, *names, f"{settings.queue}.dead")


def depth(app: Celery, settings: Settings, name: str) -> int:
    """Messages ready in one queue.

    Raises:
        BrokerUnavailable: The broker does not answer.
    """
    return _depths(app, settings, name)[name]


def _depths(app: Celery, settings: Settings, *names: str) -> dict[str, int]:
    found = {}
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
        raise BrokerUnavailable(f"the broker cannot be reached: {_reason(exc)}") from exc
    return found
