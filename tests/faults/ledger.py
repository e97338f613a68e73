"""What really ran, written down by the processes that ran it: an engine that keeps a ledger.

`TEXTGEN_FAULTS_LEDGER` names the file. Each line is a JSON object and is added in one write, so that
any number of processes share the file and a killed one leaves no half of a line. Its times are seconds
since the machine started, as the kernel says them, whatever a process takes the date to be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from textgen.engines.base import Chunk, EngineRequest, Finish
from textgen.engines.mock import MockEngine

#: Names the ledger's file.
LEDGER = "TEXTGEN_FAULTS_LEDGER"


def uptime_s() -> float:
    """Seconds since the machine started."""
    with open("/proc/uptime") as file:
        return float(file.read().split()[0])


def note(kind: str, **what: Any) -> None:
    """Add a line to the ledger."""
    descriptor = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        line = json.dumps({"kind": kind, "at": uptime_s(), "pid": os.getpid(), "ppid": os.getppid(), **what})
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


class LedgerEngine(MockEngine):
    """The mock engine, which notes where each attempt begins and where its text is complete.

    `metadata.act` set to `exits` makes an attempt leave by `SystemExit`.
    """

    name = "ledger"

    def generate(self, request: EngineRequest) -> Iterator[Chunk | Finish]:
        run = {"op": request.metadata.get("op"), "id": request.task_id, "attempt": request.attempt}
        note("run", step="begin", **run)
        if request.metadata.get("act") == "exits":
            raise SystemExit(3)
        for piece in super().generate(request):
            if isinstance(piece, Finish):
                note("run", step="end", **run)
            yield piece
