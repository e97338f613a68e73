"""The step of a worker that consumes deliveries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from textgen.webhooks.consumer import Deliveries


def test_a_connection_that_is_lost_is_not_closed_again() -> None:
    def fails() -> None:
        raise ConnectionError

    consumer: Any = SimpleNamespace(connection=None, pool=SimpleNamespace(is_green=True))
    step = Deliveries(consumer)
    step.consumers = [SimpleNamespace(cancel=fails, channel=SimpleNamespace(close=fails))]
    step.stop(consumer)
    step.shutdown(consumer)
