"""Groups whose submit breaks off: a group is one submit, so that nothing of it may stay."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from textgen.errors import TextgenError


class Groups(threading.local):
    """The members of the group that this thread is submitting.

    Args:
        give_up: Undoes the submit of a task of this id.
    """

    def __init__(self, give_up: Callable[[str], None]) -> None:
        self._give_up = give_up
        self._group_id: str | None = None
        self._submitted: list[str] = []

    @contextmanager
    def member(self, group_id: str | None, task_id: str) -> Iterator[None]:
        """Submit one member in the block; where that fails, undo those before it.

        Args:
            group_id: Celery's id of the group, or None for a task that belongs to none.
            task_id: The member's.
        """
        if group_id is None:
            yield
            return
        if group_id != self._group_id:
            self._group_id, self._submitted = group_id, []
        try:
            yield
        except TextgenError:
            for submitted in self._submitted:
                self._give_up(submitted)
            self._submitted = []
            raise
        self._submitted.append(task_id)
