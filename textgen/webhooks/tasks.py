"""The Celery task of a delivery. Its message only names it: address and body stay in Redis.

The message is no more than a hint that something is due; one that is lost is sent again.
"""

from __future__ import annotations

import os
from functools import lru_cache

import structlog

from textgen import broker, queues
from textgen.celery import app
from textgen.errors import StoreUnavailable
from textgen.logs import outline
from textgen.settings import get_settings
from textgen.store import open_store
from textgen.webhooks.deliver import Sender

log = structlog.get_logger(__name__)


@lru_cache(maxsize=4)
def _sender(pid: int) -> Sender:
    return Sender(get_settings(), open_store())


@app.task(
    name="textgen.webhooks.tasks.deliver",
    ignore_result=True,
    acks_late=False,
    Strategy="textgen.webhooks.consumer:beside_generation",
)
def deliver(delivery_id: str) -> None:
    """Try a delivery of a webhook once, if it is still to be made.

    Args:
        delivery_id: Its `webhook-id`.
    """
    try:
        _sender(os.getpid()).attempt(delivery_id)
    except StoreUnavailable as exc:
        log.warning("webhook waits for the store", delivery=delivery_id, reason=str(exc))
    except Exception as exc:  # noqa: BLE001 - Celery would print an error that may quote the address
        log.error("webhook stumbled", delivery=delivery_id, where=outline(exc))


def publish(delivery_id: str) -> None:
    """Have a worker try a delivery.

    Raises:
        BrokerUnavailable: The broker did not confirm in time.
    """
    settings = get_settings()
    with broker.producer(app, settings) as producer:
        deliver.apply_async(
            (delivery_id,),
            task_id=delivery_id,
            producer=producer,
            queue=queues.webhooks(settings),
            retry=False,
            mandatory=True,
            confirm_timeout=settings.publish_timeout_s,
        )
