"""Revoking: Flower's, `AsyncResult.revoke`'s and `celery control revoke`'s way to cancel.

A revoke is a broadcast that workers which are down or restart never hear. So the cancel is written
to the store first, where every claim meets it; the broadcast is then only the faster messenger.
"""

from __future__ import annotations

from typing import Any

from celery.app.control import Control

from textgen import outcomes
from textgen.lifecycle import is_task_id
from textgen.store import open_store


class CancellingControl(Control):
    """Celery's remote control, with cancels that last."""

    def broadcast(self, command: str, arguments: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Send a command to the workers; a revoke or terminate cancels its tasks first.

        Nothing is terminated for tasks of ours: the engine stops at its next chunk in every pool, and
        to kill a child would take other work with it.

        Args:
            command: The command's name.
            arguments: Its arguments.
            *args: As for Celery's.
            **kwargs: As for Celery's.

        Raises:
            StoreUnavailable: Redis did not answer; the tasks go on.
        """
        if command in ("revoke", "terminate"):
            given = dict(arguments or {})
            ids = given.get("task_id")
            ours = [one for one in ([ids] if isinstance(ids, str) else ids or []) if is_task_id(one)]
            for one in ours:
                outcomes.cancel(open_store(), one)
            if ours:
                command, arguments = "revoke", {**given, "terminate": False}
        return super().broadcast(command, arguments, *args, **kwargs)
