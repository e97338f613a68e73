"""Questions that tell whether a part of the stack is ready; the answer None means that it is.

Each takes few seconds at the most. They are asked while the stack starts, not while it runs.
"""

from __future__ import annotations

import httpx
import redis
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

#: Seconds that a server on this machine may take to answer.
TIMEOUT_S = 2.0
#: Seconds that a page may take; readiness asks broker, store and workers in turn.
PAGE_TIMEOUT_S = 8.0
#: Seconds that a worker may take to answer a ping.
PING_S = 1.0


def server_trouble(url: str) -> str | None:
    """Why the Redis or Valkey server at `url` is not ready (such as while it loads), or None."""
    client = redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )
    try:
        client.ping()
    except redis.RedisError as exc:
        return str(exc)
    finally:
        client.close()
    return None


def page_trouble(url: str) -> str | None:
    """Why `url` does not answer 200, or None."""
    try:
        answer = httpx.get(url, timeout=PAGE_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as exc:
        return f"{url}: {exc}"
    return None if answer.status_code == httpx.codes.OK else f"{url} answers {answer.status_code}"


def worker_trouble(node: str) -> str | None:
    """Why the Celery worker `node` does not answer a ping, or None."""
    from textgen.celery import app

    connection = app.connection_for_write(connect_timeout=TIMEOUT_S)
    troubles: tuple[type[BaseException], ...] = (
        *connection.connection_errors,
        *connection.channel_errors,
        OperationalError,
    )
    try:
        with connection:
            replies = app.control.ping(destination=[node], timeout=PING_S, limit=1, connection=connection)
    except troubles as exc:
        return f"the broker does not answer: {exc}"
    return None if replies else "does not answer a ping"
