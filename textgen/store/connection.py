"""Connections to Redis: bounded in number and time, one pool per process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.retry import Retry

from textgen.errors import ConfigurationError, StoreBroken, StoreForbidden, StoreUnavailable
from textgen.settings import Settings, get_settings
from textgen.store.autopipeline import AutoPipelining

#: Seconds after which an idle connection is tested before its next use.
HEALTH_CHECK_INTERVAL_S = 30
#: How Redis answers in a state that passes: by a word of its own (MISCONF, NOREPLICAS, BUSY, …). Those for
#: what it will never do are WRONGTYPE and ERR, which the client library leaves out.
_PASSES = re.compile(r"(?!WRONGTYPE |ERR )[A-Z]{2,} |max number of clients")


def connect(settings: Settings, decodes: bool = True) -> redis.Redis:
    """Make a client with its own pool, which answers in str or bytes. Nothing is sent before its first call.

    A call that meets a closed connection is repeated once: every script may be. One that times out
    is not, so that no call takes longer than its bound.
    """
    pool = redis.BlockingConnectionPool.from_url(
        settings.store,
        decode_responses=decodes,
        encoding_errors="replace",  # what others put there must not break off the calls of a whole group
        max_connections=settings.redis_max_connections,
        timeout=settings.redis_timeout_s,
        socket_timeout=settings.redis_timeout_s,
        socket_connect_timeout=settings.redis_timeout_s,
        health_check_interval=HEALTH_CHECK_INTERVAL_S,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        driver_info=DriverInfo(),  # one for all: to make it looks the library's version up
    )
    return AutoPipelining.from_pool(pool)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the client library's errors into StoreUnavailable, without the address's password.

    Raises:
        StoreBroken: No repetition helps.
        StoreUnavailable: Redis does not answer, or not now.
    """
    try:
        yield
    except redis.OutOfMemoryError as exc:
        raise StoreUnavailable("Redis is out of memory and takes nothing new; try again later") from exc
    except redis.AuthenticationError as exc:
        reason = "Redis refused the login; check REDIS_URL, or REDIS_USER and REDIS_PASSWORD"
        raise StoreUnavailable(reason) from exc
    except redis.ReadOnlyError as exc:
        raise StoreUnavailable("Redis is a read-only replica; point REDIS_URL at the primary") from exc
    except redis.RedisError as exc:
        if _is_forbidden(exc):
            raise StoreForbidden(_forbidden(str(exc))) from exc
        if refusal := _refusal(exc):
            raise StoreBroken(f"Redis cannot do what it was asked for ({refusal})") from exc
        raise StoreUnavailable(f"Redis cannot be reached or cannot answer ({type(exc).__name__})") from exc


def _refusal(exc: redis.RedisError) -> str | None:
    """Why Redis, or its client, will never do what was asked; None: it may yet."""
    if isinstance(exc, redis.DataError):
        return "DataError"
    reason = str(exc).rpartition(" of pipeline caused error: ")[2]
    if type(exc) is not redis.ResponseError or _PASSES.match(reason):
        return None
    return re.split(r",| script: ", reason, maxsplit=1)[0]  # what follows a comma may be part of the call


def _is_forbidden(exc: redis.RedisError) -> bool:
    """Whether Redis' access control forbids what was asked, of a command or inside a script."""
    told = ("ACL failure", "The user executing the script can't")
    return isinstance(exc, redis.exceptions.NoPermissionError) or str(exc).startswith(told)


def _forbidden(reason: str) -> str:
    user = unquote(urlsplit(get_settings().store).username or "default")
    reason = reason.partition(" script: ")[0]
    return f"Redis forbids it to user {user!r} ({reason}): grant what deploy/redis_users.sh grants"


def refuse_eviction(client: redis.Redis) -> None:
    """Make sure that Redis does not throw tasks away when its memory is full.

    Raises:
        ConfigurationError: Its eviction policy would.
        StoreUnavailable: It does not answer.
    """
    with translated():
        policy = client.info("memory").get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigurationError(
            f"Redis evicts keys when its memory is full (maxmemory-policy {policy}), and would drop accepted "
            "tasks: set maxmemory-policy noeviction, or TEXTGEN_ALLOW_EVICTION=true to accept that"
        )
