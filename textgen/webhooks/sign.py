"""Signs what is sent, as Standard Webhooks says: one signature for each secret that is valid."""

from __future__ import annotations

from datetime import UTC, datetime

from standardwebhooks import Webhook


def headers(delivery_id: str, body: str, secrets: list[str], now_ms: float) -> dict[str, str]:
    """The headers that let a receiver verify `body`.

    Args:
        delivery_id: The same in every try of a delivery.
        body: What is sent.
        secrets: In the form `whsec_…`; a receiver needs one of them.
        now_ms: The time of this try, in milliseconds since 1970.
    """
    at = datetime.fromtimestamp(int(now_ms / 1000), UTC)
    signatures = [Webhook(secret).sign(delivery_id, at, body) for secret in secrets]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
