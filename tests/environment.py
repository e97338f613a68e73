"""The environment variables of the test process and of the processes it starts."""

from __future__ import annotations

import os
import shutil
import tempfile
from itertools import count
from pathlib import Path

from tests.processes import free_port

Environment = dict[str, str]

#: Beginnings of the variables that textgen, its servers and their clients would read.
SCRUBBED = (
    "ANTHROPIC_",
    "CELERY_",
    "C_FORCE_ROOT",
    "FLOWER_",
    "GUNICORN_",
    "OPENAI_",
    "PREFETCH_COUNT",
    "RABBITMQ_",
    "REDIS_",
    "TASK_TTL",
    "TEXTGEN_",
    "TEXT_GENERATION_",
    "XDG_",
)

#: The cache of whoever runs the tests, where a fetched model lies; the tests' own is empty.
CACHE_HOME = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")

#: Where the servers of this run will listen, once a test asks for them.
BROKER_PORT, STORE_PORT = free_port(), free_port()

_run_folder = Path(tempfile.mkdtemp(prefix="textgen-tests-"))
_names = count(1)


def new_folder(name: str) -> Path:
    """A fresh folder, removed at the end of the run."""
    folder = _run_folder / f"{next(_names)}-{name}"
    folder.mkdir()
    return folder


def remove_folders() -> None:
    shutil.rmtree(_run_folder, ignore_errors=True)


def variables(broker_url: str, redis_url: str, folder: Path) -> Environment:
    """What the processes of a stack need: its two servers, the mock engine, state in `folder`."""
    return {
        "CELERY_BROKER_URL": broker_url,
        "REDIS_URL": redis_url,
        "TEXTGEN_ENGINE": "mock",
        "TEXTGEN_RETRY_BASE_S": "0.2",
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def live() -> Environment:
    """The one environment of the test process, on the ports of this run."""
    broker, store = f"amqp://guest:guest@127.0.0.1:{BROKER_PORT}//", f"redis://127.0.0.1:{STORE_PORT}/0"
    return variables(broker, store, _run_folder)


def enter_live() -> None:
    """Put the test process into `live`; to be called before anything imports textgen."""
    for name in [name for name in os.environ if name.startswith(SCRUBBED)]:
        del os.environ[name]
    os.environ.update(live())


def of_process(env: Environment) -> Environment:
    """`env` on top of what has nothing to do with us in this process's own environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(SCRUBBED)}
    return inherited | {"PYTHONUNBUFFERED": "1", "C_FORCE_ROOT": "1"} | env
