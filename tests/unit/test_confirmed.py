"""A publish that RabbitMQ refuses is tried again for a moment: a queue without a leader refuses all."""

from __future__ import annotations

import pytest
from amqp.exceptions import MessageNacked
from kombu.exceptions import OperationalError

from textgen import broker


class Publish:
    """Fails as often as told, as kombu tells of it."""

    def __init__(self, failures: int, cause: Exception) -> None:
        self.left, self.cause, self.calls = failures, cause, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls <= self.left:
            raise OperationalError from self.cause


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "REFUSED_PAUSES_S", (0.0, 0.0))


def test_what_is_refused_for_a_moment_is_published() -> None:
    publish = Publish(2, MessageNacked())
    broker.confirmed(publish)
    assert publish.calls == 3


def test_what_stays_refused_is_an_error_after_the_last_try() -> None:
    publish = Publish(9, MessageNacked())
    with pytest.raises(OperationalError):
        broker.confirmed(publish)
    assert publish.calls == 3


def test_what_may_have_arrived_is_not_sent_twice() -> None:
    publish = Publish(9, TimeoutError())
    with pytest.raises(OperationalError):
        broker.confirmed(publish)
    assert publish.calls == 1
