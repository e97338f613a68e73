"""API keys in Redis: one hash, key id → what is known of the key, as JSON. A secret is not among it."""

from __future__ import annotations

import redis

from textgen.errors import ConfigurationError
from textgen.store import keys
from textgen.store.connection import translated
from textgen.store.tasks import Store

#: Keys that there may be, live or not.
MAX_KEYS = 10_000


def find(store: Store, key_id: str) -> str | None:
    """What is known of a key, or None."""
    with translated():
        found = store.client.hget(keys.API_KEYS, key_id)
    return None if found is None else str(found)


def every(store: Store) -> list[str]:
    """What is known of each key, in no order."""
    with translated():
        return [str(text) for text in store.client.hvals(keys.API_KEYS)]


def put(store: Store, texts: dict[str, str]) -> None:
    """Write keys down, or what changed about them, all or none.

    Raises:
        ConfigurationError: There would be more than `MAX_KEYS`.
        StoreUnavailable: Redis did not answer.
    """
    while True:
        with translated(), store.client.pipeline() as pipe:
            pipe.watch(keys.API_KEYS)
            known = sum(bool(pipe.hexists(keys.API_KEYS, key_id)) for key_id in texts)
            if int(pipe.hlen(keys.API_KEYS)) + len(texts) - known > MAX_KEYS:
                raise ConfigurationError(f"there are {MAX_KEYS} API keys already; revoke some first")
            pipe.multi()
            pipe.hset(keys.API_KEYS, mapping=texts)
            try:
                pipe.execute()
            except redis.WatchError:
                continue
            return


def drop(store: Store, key_id: str) -> bool:
    """Forget a key; False if there was none."""
    with translated():
        return bool(store.client.hdel(keys.API_KEYS, key_id))
