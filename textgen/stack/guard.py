"""The process that ends a stack whose supervisor was killed (run as `python -m textgen.stack.guard`).

Its standard input is a pipe whose other end only the supervisor holds. Each child reports itself
there between fork and exec, so that none can be missed; when the pipe ends without the children
having been taken off it, the supervisor is dead, and the guard ends them: the servers last.
A line is `+ <stage> <process group>` or `- <stage> <process group>`; lower stages end first.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

#: Seconds that processes get between SIGTERM and SIGKILL. What they were doing is redelivered.
GRACE_S = 3.0
#: Seconds between two looks at whether they have gone. They are not the guard's own children.
LOOK_S = 0.05


def line(sign: str, stage: int, group: int) -> bytes:
    """One report; short enough to be written to a pipe in one piece."""
    return f"{sign} {stage} {group}\n".encode()


def read(reports: Iterable[str]) -> dict[int, int]:
    """Read reports until they end; returns process group → stage of what is left."""
    left: dict[int, int] = {}
    for report in reports:
        sign, stage, group = report.split()
        if sign == "+":
            left[int(group)] = int(stage)
        else:
            left.pop(int(group), None)
    return left


def end(groups: Iterable[int]) -> None:
    """End process groups: SIGTERM to their leaders, SIGKILL to all that are left after `GRACE_S`."""
    waited_for = set(groups)
    for group in waited_for:
        with suppress(ProcessLookupError):
            os.kill(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while (waited_for := {group for group in waited_for if _exists(group)}) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    for group in waited_for:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Wait for the supervisor to end, then end what it left."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    left = read(sys.stdin)
    for stage in sorted(set(left.values())):
        end(group for group, at in left.items() if at == stage)


if __name__ == "__main__":
    main()
