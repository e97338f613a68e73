"""A received message as a worker sees it: fenced, hidden from onlookers, ended with its process."""

from __future__ import annotations

import atexit
import threading
import uuid
from typing import Any

import structlog
from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from textgen import outcomes
from textgen.errors import StoreUnavailable
from textgen.settings import get_settings
from textgen.store import open_store

log = structlog.get_logger(__name__)

#: What Flower, `inspect` and logs show instead of arguments.
HIDDEN = "<hidden>"
#: Seconds that the end of a process waits for an attempt to be handed back.
HAND_BACK_S = 5.0


class GenerateRequest(Request):
    """A worker's view of a received message: fenced by a token, its arguments hidden."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The token is made here, in the worker's main process, so that both this process and the
        # one that runs the attempt can speak for it.
        self._request_dict["token"] = uuid.uuid4().hex
        # Celery's own expiry would take the task away without a word in its record, and its own limits
        # hold in some pools only: `textgen.tasks` reads both as deadline and limit of an attempt.
        self._expires = None
        self.time_limits = (None, None)
        self._argsrepr = self._kwargsrepr = HIDDEN
        self._is_cancelled = False

    @property
    def token(self) -> str:
        """The fencing token of this delivery."""
        return str(self._request_dict["token"])

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """End the attempt of a child that died at once, instead of when its lease has run out."""
        lost = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(lost, WorkerLostError) and not self._is_cancelled:
            try:
                outcomes.lose(open_store(), get_settings(), self.id, self.token)
            except StoreUnavailable as exc:
                log.warning("lost attempt not ended: its lease will lapse", task_id=self.id, reason=str(exc))
        return super().on_failure(exc_info, *args, **kwargs)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Hand the attempt back, and end the process that runs it: a cold stop, in its signal's handler.

        In a thread, because the signal may have come while a lock of the store's client was held; the end
        of the process waits for it. Under gevent Celery's handler fails before it comes to this, and
        the lease has to lapse.
        """
        self._is_cancelled = True
        hands = threading.Thread(target=self.hand_back, name="hand-back", daemon=True)
        hands.start()
        atexit.register(hands.join, HAND_BACK_S)
        if "prefork" in type(pool).__module__:  # elsewhere the attempt finds itself fenced
            super().cancel(pool, signal, emit_retry)

    def hand_back(self) -> None:
        """Give up the attempt because the worker stops: it counts as no failure, and another begins."""
        try:
            if outcomes.hand_back(open_store(), self.id, self.token):
                log.info("attempt handed back", task_id=self.id)
        except StoreUnavailable as exc:
            log.warning("attempt not handed back: its lease will lapse", task_id=self.id, reason=str(exc))

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Describe the request for `inspect` and Flower, arguments always hidden."""
        return dict(super().info(safe=True))
