"""The Celery app, which `celery -A textgen` finds."""

from __future__ import annotations

from celery import Celery, signals

import celeryconfig

app = Celery(
    "textgen",
    include=["textgen.tasks"],
    control="textgen.control:CancellingControl",
)
#: Pinned here, because Celery lets CELERY_RESULT_BACKEND override the setting.
app.backend_cls = celeryconfig.result_backend
app.config_from_object(celeryconfig)


@signals.celeryd_init.connect
def _prepare_worker(**_: object) -> None:
    """Give workers, and only them, their further duties."""
    from textgen import bootsteps

    bootsteps.install(app)
