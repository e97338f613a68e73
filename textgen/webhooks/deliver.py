"""One try of a delivery: take it, sign it, send it, write down how that went and when to try again."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from textgen.settings import Settings
from textgen.store import Store, deliveries, webhook_secrets
from textgen.store.deliveries import Delivery, Try
from textgen.webhooks import sign
from textgen.webhooks.guard import Guard, parse
from textgen.webhooks.send import Answer, post

log = structlog.get_logger(__name__)

#: Seconds beyond its time-outs for which a delivery is nobody else's.
MARGIN_S = 15.0
#: Share by which a wait may be longer or shorter, so that a receiver that was down is not run over.
JITTER = 0.1
#: Seconds at the least after which a delivery is tried whose receiver is busy with others.
BUSY_S = 0.5


class Sender:
    """Sends deliveries. Threads share it.

    Args:
        settings: Time-outs, schedule, and what may be reached.
        store: Where the deliveries are.
        guard: Says which addresses may be connected to; by default as the settings have it.
    """

    def __init__(self, settings: Settings, store: Store, guard: Guard | None = None) -> None:
        self.settings = settings
        self.store = store
        self.guard = guard or Guard(settings)
        self._waits_s = [float(wait) for wait in settings.webhook_retries_s.split(",")]
        #: No receiver that hangs holds up more than half of what can be sent at once.
        self._at_once = max(1, settings.webhook_senders // 2)
        #: Host and port → when each try that goes on there began.
        self._running: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def attempt(self, delivery_id: str) -> None:
        """Try a delivery once, if there is something to send and nobody else does.

        Raises:
            StoreUnavailable: Redis did not answer. The delivery comes due again by itself.
        """
        delivery = deliveries.begin(self.store, delivery_id, self.settings.webhook_timeout_s + MARGIN_S)
        if delivery is None:
            return
        with self._place(parse(delivery.url).authority) as busy_s:
            if busy_s:
                deliveries.put_back(self.store, delivery, busy_s)
            elif deliveries.is_disabled(self.store, delivery.owner, delivery.url):
                self._end(delivery, Answer(None, "address is gone", 0), "disabled", None)
            else:
                self._conclude(delivery, self.send(delivery))

    def send(self, delivery: Delivery) -> Answer:
        """Sign and send, and nothing else."""
        secrets = webhook_secrets.valid(self.store, delivery.signer)
        headers = sign.headers(delivery.id, delivery.body, secrets, self.store.now_ms())
        return post(delivery.url, headers, delivery.body, self.guard, self.settings.webhook_timeout_s)

    @contextmanager
    def _place(self, receiver: str) -> Iterator[float]:
        """Take part in what goes on with a receiver until the end of the block.

        Yields:
            0, or the seconds after which to come back because it is busy with as much as it may be.
        """
        began = time.monotonic()
        with self._lock:
            running = self._running.setdefault(receiver, [])
            is_free = len(running) < self._at_once
            busy_s = 0.0 if is_free else max(BUSY_S, began - running[0]) * random.uniform(1, 2)  # noqa: S311
            running += [began] if is_free else []
        try:
            yield busy_s
        finally:
            if is_free:
                with self._lock:
                    running.remove(began)
                    if not running:
                        del self._running[receiver]

    def _conclude(self, delivery: Delivery, answer: Answer) -> None:
        if answer.is_success:
            self._end(delivery, answer, "delivered", None)
        elif answer.status_code == 410:
            deliveries.disable(self.store, delivery.owner, delivery.url)
            self._end(delivery, answer, "gone", None)
        elif delivery.tries >= len(self._waits_s):
            self._end(delivery, answer, "given_up", None)
        else:
            wait_s = self._waits_s[delivery.tries] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
            self._end(delivery, answer, "failed", max(wait_s, answer.retry_after_s))

    def _end(self, delivery: Delivery, answer: Answer, outcome: str, again_in_s: float | None) -> None:
        tried = Try(
            id=delivery.id,
            type=json.loads(delivery.body)["type"],
            number=delivery.tries + 1,
            outcome=outcome,
            status_code=answer.status_code,
            reason=answer.reason,
            duration_ms=answer.duration_ms,
        )
        deliveries.end(self.store, delivery, tried, again_in_s)
        log.info(
            f"webhook {outcome.replace('_', ' ')}",
            delivery=delivery.id,
            number=tried.number,
            status_code=answer.status_code,
            reason=answer.reason,
            ms=answer.duration_ms,
        )
