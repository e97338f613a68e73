"""What an error of Redis is taken for: an outage, which passes, or a call that it will never carry out."""

from __future__ import annotations

import pytest
import redis

from textgen.errors import StoreBroken, StoreForbidden, StoreUnavailable
from textgen.store.connection import translated


def taken_for(exc: Exception) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught, translated():
        raise exc
    return caught.value


@pytest.mark.parametrize(
    "exc",
    [
        redis.ConnectionError("refused"),
        redis.TimeoutError("late"),
        redis.BusyLoadingError("Redis is loading the dataset in memory"),
        redis.AuthenticationError("invalid password"),
        redis.OutOfMemoryError("command not allowed"),
        redis.ReadOnlyError("You can't write against a read only replica."),
        redis.exceptions.ClusterDownError("The cluster is down"),
        redis.exceptions.MasterDownError("Link with MASTER is down"),
        redis.exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
        redis.exceptions.ExecAbortError("Transaction discarded because of previous errors."),
        redis.exceptions.NoScriptError("No matching script."),
        redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it cannot"),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
        redis.ResponseError("BUSY Redis is busy running a script."),
        redis.ResponseError("max number of clients + cluster connections reached"),
    ],
)
def test_an_outage_passes(exc: Exception) -> None:
    assert type(taken_for(exc)) is StoreUnavailable


def test_what_is_forbidden_is_neither() -> None:
    assert type(taken_for(redis.exceptions.NoPermissionError("no"))) is StoreForbidden


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (redis.DataError("Invalid input of type: 'NoneType'"), "DataError"),
        (
            redis.ResponseError("value is not an integer or out of range script: ab1, on @user_script:9."),
            "value is not an integer or out of range",
        ),
        (
            redis.ResponseError("user_script:42: 2.5 is no number script: ab1, on @user_script:42."),
            "user_script:42: 2.5 is no number",
        ),
        (
            redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        (
            redis.ResponseError("Command # 1 (HGET a) of pipeline caused error: WRONGTYPE Operation"),
            "WRONGTYPE Operation",
        ),
        (
            redis.ResponseError("unknown command 'X', with args beginning with: 'secret'"),
            "unknown command 'X'",
        ),
    ],
)
def test_what_redis_will_never_do_is_no_outage(exc: Exception, reason: str) -> None:
    found = taken_for(exc)
    assert type(found) is StoreBroken
    assert str(found) == f"Redis cannot do what it was asked for ({reason})"
