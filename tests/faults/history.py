"""What clients asked and were answered, and what was seen of the stack: one JSON object per line.

Every entry has a `kind`. Times are seconds since 1970 by the client's clock.

    meta       seed, stack, ttl_s, max_attempts, answer_bound_s, end_bound_s, queues
    submit     at, until, how, op, owner, key, status, id, retry_after, replayed, killed
               status null: no answer came; killed: and a process was being killed
    read       at, until, owner, id, status, record (see `digest` in `world`), owner_of
    cancel     at, until, id, status
    run        at, op, id, attempt, pid, step (`begin`, `end`): what the engine itself noted
    store      at, event: `emptied` (all records), `lost_all` (records and messages)
    ttl        at, keys {key: milliseconds}
    resources  at, process, rss_mb, fds, redis_clients, connections
    rate       at, row, since_heal_s, baseline_per_s, per_s
    webhook    at, id, event, webhook_id
    leak       at, where
    final      at, records {id: record with owner and op}, queues {name: messages}, dead [{id, reason}]
    fault      at, row, name, step (`begin`, `end`)
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class History:
    """The history of one run, in a file; any number of threads write to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def write(self, kind: str, **fields: Any) -> None:
        """Add an entry."""
        line = json.dumps({"kind": kind, **fields}, separators=(",", ":"))
        with self._lock, self.path.open("a") as file:
            file.write(f"{line}\n")

    def read(self) -> Iterator[Entry]:
        """All entries, in the order of writing."""
        with self.path.open() as file:
            yield from map(json.loads, file)
