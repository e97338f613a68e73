"""What is kept by time: what must be published, what must be looked at, and who is there.

Both schedules are sorted sets of task ids by milliseconds of Redis' clock. An entry is added before what it
guards happens and removed afterwards, so that a crash in between leaves an entry too many.
"""

from __future__ import annotations

from typing import Any

from textgen.store import keys, scripts
from textgen.store.connection import translated
from textgen.store.tasks import Store


class Schedule:
    """One of the two sorted sets.

    Args:
        store: Whose Redis and clock it uses.
        key: `keys.OUTBOX` or `keys.WATCH`.
    """

    def __init__(self, store: Store, key: str) -> None:
        self.store = store
        self.key = key

    def postpone(self, task_id: str, until_ms: float) -> None:
        """Move an entry that is there to `until_ms`."""
        with translated():
            self.store.client.zadd(self.key, {task_id: until_ms}, xx=True)

    def due(self, limit: int) -> list[tuple[str, str]]:
        """The task ids that are due, oldest first, each with its score as Redis wrote it."""
        with translated():
            found: Any = self.store.client.execute_command(
                "ZRANGEBYSCORE", self.key, "-inf", self.store.now_ms(), "WITHSCORES", "LIMIT", 0, limit
            )
        if found and isinstance(found[0], (list, tuple)):
            found = [part for pair in found for part in pair]
        return [(found[i], str(found[i + 1])) for i in range(0, len(found), 2)]

    def remove(self, task_id: str) -> None:
        """Remove an entry, whatever its time."""
        with translated():
            self.store.client.zrem(self.key, task_id)

    def settle(self, task_id: str, score: str) -> None:
        """Remove an entry unless it was given another time since it was read."""
        with translated():
            scripts.run(self.store.client, "settle", [self.key], [task_id, score])

    def __len__(self) -> int:
        with translated():
            return int(self.store.client.zcard(self.key))


def present(store: Store, worker: str, for_s: float) -> None:
    """Say that `worker` can be given work for the next `for_s` seconds; 0 or less: no more."""
    now = store.now_ms()
    with translated():
        pipe = store.client.pipeline(transaction=False)
        pipe.zadd(keys.WORKERS, {worker: now + for_s * 1000})
        pipe.zremrangebyscore(keys.WORKERS, "-inf", now)
        pipe.execute()


def workers(store: Store) -> list[str]:
    """The names of the workers that can be given work."""
    with translated():
        return sorted(store.client.zrangebyscore(keys.WORKERS, store.now_ms(), "+inf"))


def lead(store: Store, name: str, lease_ms: int) -> bool:
    """Take or renew the janitor's leadership for `name`."""
    with translated():
        return bool(scripts.run(store.client, "lead", [keys.LEADER], [name, lease_ms]))


def abdicate(store: Store, name: str) -> None:
    """Give the janitor's leadership up at once, if `name` has it."""
    lead(store, name, 1)


def count(store: Store, what: str, number: int = 1) -> None:
    """Add to the counter of something the janitor did."""
    with translated():
        store.client.hincrby(keys.JANITOR_COUNTS, what, number)


def counts(store: Store) -> dict[str, int]:
    """What the janitor did since the store was set up, and how often."""
    with translated():
        found = store.client.hgetall(keys.JANITOR_COUNTS)
    return {what: int(number) for what, number in sorted(found.items())}
