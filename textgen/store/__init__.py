"""Redis: records, control fields, event logs, schedules and indexes, behind `Store`."""

from __future__ import annotations

import os
import threading

from textgen.settings import get_settings
from textgen.store.connection import connect
from textgen.store.tasks import Store

__all__ = ["Store", "open_store"]

_stores: dict[int, Store] = {}
_stores_lock = threading.Lock()


def open_store() -> Store:
    """The store of this process: one pool of connections, made after fork, on first use."""
    store = _stores.get(os.getpid())
    if store is None:
        with _stores_lock:
            settings = get_settings()
            store = _stores.setdefault(os.getpid(), Store(connect(settings), settings.lease_s))
    return store
