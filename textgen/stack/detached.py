"""A stack that goes on after the command that started it has returned, and how any stack is stopped.

The supervisor then is a process of its own (`python -m textgen.stack`) with nothing inherited open,
and says on a pipe, in one line of JSON, how it is reached or why it is not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from textgen.errors import TextgenError
from textgen.stack.child import how_it_ended, last_lines, open_log
from textgen.stack.errors import StackError
from textgen.stack.locks import running_stack
from textgen.stack.options import Options
from textgen.stack.supervisor import serve

#: Seconds beyond what its processes may take in which a stack must have stopped.
STOP_MARGIN_S = 30.0
#: Seconds between two looks at whether it has.
LOOK_S = 0.1


def start(options: Options) -> dict[str, Any]:
    """Start the stack of `options` and wait until it is healthy; returns how it is reached.

    Raises:
        StackError: It could not be started; the message says why.
    """
    log_file = options.state_dir / "log" / "supervisor.log"
    reader, writer = os.pipe()
    with open_log(log_file) as log, os.fdopen(reader) as reports:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "textgen.stack", options.as_json(), str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[writer],
        )
        os.close(writer)
        try:
            report = json.loads(reports.readline() or "{}")
        except BaseException:
            process.terminate()
            raise
    if "address" in report:
        return dict(report["address"])
    code = process.wait()
    message = report.get("error") or f"the supervisor {how_it_ended(code)}; its log is {log_file}"
    raise StackError.of(message, report.get("details", "" if report else last_lines(log_file)))


def stop(state_dir: Path) -> bool:
    """Stop the stack of `state_dir`, detached or not, and wait until it has; False where none runs.

    Raises:
        StackError: It does not stop.
    """
    running = running_stack(state_dir)
    if not running:
        return False
    supervisor = running["pids"]["supervisor"]
    with suppress(ProcessLookupError):
        os.kill(supervisor, signal.SIGTERM)
    deadline = time.monotonic() + running["stops_within_s"] + STOP_MARGIN_S
    while running_stack(state_dir).get("pids", {}).get("supervisor") == supervisor:
        if time.monotonic() > deadline:
            raise StackError(f"the stack on {state_dir} has not stopped; its logs are in {state_dir / 'log'}")
        time.sleep(LOOK_S)
    return True


def run(options: Options, reports: int) -> int:
    """Be the supervisor of a detached stack; returns the exit code.

    Args:
        reports: The pipe's descriptor.
    """
    os.set_inheritable(reports, False)
    pipe = os.fdopen(reports, "w")

    def report(**content: object) -> None:
        # Whoever started the stack may have gone; the stack runs all the same.
        try:
            with pipe:
                pipe.write(json.dumps(content) + "\n")
        except BrokenPipeError:
            return

    def announce(address: Mapping[str, Any]) -> None:
        report(address=address)

    try:
        serve(options, announce)
    except TextgenError as exc:
        if pipe.closed:
            raise
        report(error=str(exc), details=getattr(exc, "details", ""))
        return 1
    return 0
