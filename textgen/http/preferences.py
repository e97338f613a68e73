"""The request header `Prefer` (RFC 7240), as far as it is known here: `wait`."""

from __future__ import annotations

import re

#: What can be read as a number of seconds.
SECONDS = re.compile(r"[0-9]{1,9}")
#: Seconds that a request waits at the most, whatever it prefers.
MAX_WAIT_S = 60


def wait_s(header: str | None) -> int | None:
    """How many seconds the caller prefers to wait for the end of what it submits.

    Returns:
        The seconds, `MAX_WAIT_S` at the most; None where it states no such preference, or one that
        cannot be read (which is to be ignored).
    """
    for preference in (header or "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            seconds = value.strip().strip('"')
            return min(int(seconds), MAX_WAIT_S) if SECONDS.fullmatch(seconds) else None
    return None
