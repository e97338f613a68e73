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

    def revoke(
        self,
        task_id: str | list[str],
        destination: Any = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        **kwargs: Any,
    ) -> Any:
        """Cancel one task or several, then tell the workers.

        Args:
            task_id: Whose; ids that are no task of ours are only broadcast.
            destination: Worker names to tell; None for all.
            terminate: Not passed on: the engine stops at its next chunk in every pool, and killing
                a child would take other work with it.
            signal: Unused.
            **kwargs: As for Celery's.
        """
        ids = [task_id] if isinstance(task_id, str) else list(task_id)
        ours = [one for one in ids if is_task_id(one)]
        for one in ours:
            outcomes.cancel(open_store(), one)
        return super().revoke(
            task_id, destination=destination, terminate=terminate and not ours, signal=signal, **kwargs
        )

    def terminate(self, task_id: str, destination: Any = None, signal: str = "SIGTERM", **kwargs: Any) -> Any:
        """Cancel a task; see `revoke`."""
        return self.revoke(task_id, destination=destination, terminate=True, signal=signal, **kwargs)
