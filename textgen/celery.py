"""The Celery app, which `celery -A textgen` finds."""

from __future__ import annotations

from celery import Celery

import celeryconfig

app = Celery(
    "textgen",
    # Imported by workers only: clients need no more than textgen.tasks.
    include=["textgen.tasks", "textgen.bootsteps"],
    control="textgen.control:CancellingControl",
)
#: Pinned here, because Celery lets CELERY_RESULT_BACKEND override the setting.
app.backend_cls = celeryconfig.result_backend
app.config_from_object(celeryconfig)
