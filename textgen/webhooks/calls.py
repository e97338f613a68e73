"""What the outside can ask of webhooks: a test, the secret. See `textgen.client`."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from textgen.caller import Caller
from textgen.errors import InvalidRequest, SecretShown
from textgen.lifecycle import iso_time
from textgen.settings import get_settings
from textgen.store import deliveries, open_safe_store, open_store, webhook_secrets
from textgen.store.deliveries import Delivery
from textgen.webhooks import guard

if TYPE_CHECKING:
    from textgen.webhooks.send import Answer

#: The longest that the secret before a rotation can stay valid, and how long it does by default.
MAX_OVERLAP_S, OVERLAP_S = 30 * 24 * 3600, 24 * 3600
#: The event of a test.
TEST = "webhook.test"


def try_webhook(url: str, caller: Caller | None = None) -> Answer:
    """Send a signed `webhook.test` to an address, once and now.

    A success makes an address that had answered 410 Gone one that webhooks are sent to again.

    Args:
        url: The address.
        caller: Whose secret signs; by default that of `TEXTGEN_OWNER`.

    Raises:
        InvalidRequest: The address is not to be called.
        StoreUnavailable: Redis did not answer.
    """
    from textgen.webhooks.deliver import Sender

    settings, store = get_settings(), open_store()
    caller = caller or Caller(settings.owner)
    guard.admit(url, settings, "url")
    body = json.dumps({"type": TEST, "timestamp": iso_time(store.now_ms()), "data": {}})
    test = Delivery(f"msg_test_{uuid.uuid4()}", body, url, caller.owner, caller.signer, 0)
    answer = Sender(settings, store).send(test)
    if answer.is_success:
        deliveries.enable(store, caller.owner, url)
    return answer


def webhook_secret(caller: Caller | None = None) -> str:
    """The secret that a caller's webhooks are signed with, the first time that anybody asks.

    Each API key has its own (a key that replaced another goes on with that one's), and so has an owner
    for what is submitted without a key.

    Raises:
        SecretShown: Somebody has seen it; only a new one can be shown.
        StoreUnavailable: Redis did not answer.
    """
    secret = webhook_secrets.show_once(open_safe_store(), _signer(caller))
    if secret is None:
        raise SecretShown("the webhook secret was shown before; rotate it to get a new one")
    return secret


def rotate_webhook_secret(caller: Caller | None = None, overlap_s: float = OVERLAP_S) -> str:
    """Make a new secret; for `overlap_s` seconds webhooks are signed with the present one too.

    Raises:
        InvalidRequest: `overlap_s` is not within 0 and `MAX_OVERLAP_S`.
        StoreUnavailable: Redis did not answer.
    """
    if not 0 <= overlap_s <= MAX_OVERLAP_S:
        reason = f"must be 0 to {MAX_OVERLAP_S} seconds"
        raise InvalidRequest.of({"field": "overlap_s", "reason": reason})
    return webhook_secrets.rotate(open_safe_store(), _signer(caller), overlap_s)


def _signer(caller: Caller | None) -> str:
    return caller.signer if caller else get_settings().owner
