"""Where a user's files are, and how this user's running stack is found through one of them."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any


def state_home() -> Path:
    """The folder of this user's textgen state (XDG base directories, `$XDG_STATE_HOME`)."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "textgen"


def cache_home() -> Path:
    """The folder of what can be fetched again, such as model weights (`$XDG_CACHE_HOME`)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "textgen"


def address_file() -> Path:
    """Where `textgen up` writes how its broker and store are reached (mode 0600)."""
    return state_home() / "address.json"


def running_address(path: Path | None = None) -> dict[str, Any]:
    """Read the address of this user's running stack, or of the one that holds the file `path`.

    Returns:
        The address file's object, or `{}` where there is none or its stack no longer runs. A
        running `textgen up` holds an exclusive lock on the file, which dies with it.
    """
    try:
        with (path or address_file()).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return dict(json.load(file))
    except (OSError, ValueError):
        pass
    return {}
