"""Redis: records, control fields, event logs, schedules and indexes, behind `Store`."""

from __future__ import annotations

import os
import threading

from textgen import prices
from textgen.settings import get_settings
from textgen.store.connection import connect, refuse_eviction
from textgen.store.tasks import Store

__all__ = ["Store", "open_safe_store", "open_store"]

_stores: dict[int, Store] = {}
_stores_lock = threading.Lock()
_safe: set[int] = set()


def open_store() -> Store:
    """The store of this process: one pool of connections, made after fork, on first use."""
    store = _stores.get(os.getpid())
    if store is None:
        with _stores_lock:
            settings = get_settings()
            made = Store(
                connect(settings), settings.lease_s, settings.redis_timeout_s, prices.from_settings(settings)
            )
            store = _stores.setdefault(os.getpid(), made)
    return store


def open_safe_store() -> Store:
    """The store, to put tasks into: made sure of once per process that it will keep them.

    Raises:
        ConfigurationError: Redis would evict accepted tasks.
        StoreUnavailable: Redis does not answer.
    """
    store = open_store()
    if os.getpid() not in _safe and not get_settings().allow_eviction:
        refuse_eviction(store.client)
        _safe.add(os.getpid())
    return store
