"""What webhooks are signed with, by the name of the signer (`Caller.signer`).

The receiver has the same secret, so it is kept as it is.

A signer has one secret, made when it is first needed, and after a rotation for a while the one before.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import redis

from textgen.store import keys
from textgen.store.connection import translated
from textgen.store.tasks import Store

#: Bytes of a secret: Standard Webhooks asks for 24 to 64.
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of a signer."""

    #: In the form `whsec_…`, as are all.
    current: str
    #: Whether somebody was shown the current one.
    shown: bool = False
    #: The one before, and the time in milliseconds until which it signs too.
    previous: str = ""
    previous_until_ms: float = 0.0


def valid(store: Store, signer: str) -> list[str]:
    """The secrets to sign with, the current one first."""
    found = _change(store, signer, lambda known: known)
    if found.previous and store.now_ms() < found.previous_until_ms:
        return [found.current, found.previous]
    return [found.current]


def show_once(store: Store, signer: str) -> str | None:
    """The current secret, or None if it was shown before."""
    first = False

    def show(known: Secrets) -> Secrets:
        nonlocal first
        first = not known.shown
        return replace(known, shown=True)

    found = _change(store, signer, show)
    return found.current if first else None


def rotate(store: Store, signer: str, overlap_s: float) -> str:
    """Make a new secret and give it back; the present one signs too for `overlap_s` seconds."""
    until = store.now_ms() + overlap_s * 1000
    return _change(store, signer, lambda known: Secrets(_new(), True, known.current, until)).current


def _new() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def _change(store: Store, signer: str, change: Callable[[Secrets], Secrets]) -> Secrets:
    """Replace a signer's secrets by what `change` makes of them, undisturbed by others."""
    name = keys.webhook_secrets(signer)
    while True:
        with translated(), store.client.pipeline() as pipe:
            pipe.watch(name)
            text = pipe.get(name)
            known = Secrets(**json.loads(str(text))) if text else Secrets(_new())
            made = change(known)
            if text and made == known:
                return made
            pipe.multi()
            pipe.set(name, json.dumps(asdict(made)))
            try:
                pipe.execute()
            except redis.WatchError:
                continue
            return made
