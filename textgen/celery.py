"""The Celery app, which `celery -A textgen` finds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from celery import Celery

from textgen import dashboard  # noqa: F401 - restricts `celery -A textgen flower`


def _celeryconfig() -> ModuleType:
    """Load the celeryconfig.py that lies beside this package.

    A plain import would take any file of that name in the working directory first, because Celery
    puts that at the head of the path.
    """
    file = Path(__file__).parent.parent / "celeryconfig.py"
    spec = importlib.util.spec_from_file_location("textgen_celeryconfig", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_settings = _celeryconfig()

app = Celery(
    "textgen",
    # Imported by workers only: clients need no more than textgen.tasks.
    include=["textgen.tasks", "textgen.bootsteps", "textgen.webhooks.consumer", "textgen.webhooks.tasks"],
    control="textgen.control:CancellingControl",
)
#: Pinned here, because Celery lets CELERY_RESULT_BACKEND override the setting.
app.backend_cls = _settings.result_backend
app.config_from_object(_settings)
