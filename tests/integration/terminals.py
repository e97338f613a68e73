"""The `textgen` command as its users run it: in a pipe, or on a terminal of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from select import select
from typing import Any, Self

from tests.environment import Environment, of_process
from tests.processes import require

COMMAND = [sys.executable, "-c", "from textgen.cli import main; main()"]


def textgen(env: Environment, *arguments: str, stdin: str = "", timeout_s: float = 60) -> Any:
    """Run the command to its end in a pipe; returns subprocess's result, text as str."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=of_process(env),
        cwd=env["XDG_STATE_HOME"].rpartition("/")[0],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def documents(run: Any) -> list[Any]:
    """The JSON lines that a command wrote, which must be all that it wrote to stdout."""
    return [json.loads(line) for line in run.stdout.splitlines()]


class Terminal:
    """The command on a pseudo-terminal of its own; a context manager that ends it at exit."""

    def __init__(self, env: Environment, *arguments: str) -> None:
        self.text = ""
        #: How far `expect` has come.
        self._seen = 0
        # without CPR, prompt_toolkit asks nothing of the terminal that a test would have to answer
        env = of_process(env) | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "COLUMNS": "120"}
        self._fd, theirs = os.openpty()
        self._popen = subprocess.Popen(
            # as its controlling terminal, so that Ctrl-C is a signal
            [require("setsid", "util-linux"), "--ctty", *COMMAND, *arguments],
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._popen.kill()
        self._popen.wait()
        os.close(self._fd)

    def send(self, keys: str) -> None:
        """Type `keys`."""
        os.write(self._fd, keys.encode())

    def expect(self, text: str, timeout_s: float = 20) -> None:
        """Wait until `text` is shown behind what was expected last."""
        until = time.monotonic() + timeout_s
        while text not in self.text[self._seen :]:
            if not self._read(until - time.monotonic()):
                raise AssertionError(f"{text!r} was not shown, but: {self.text[self._seen :]!r}")
        self._seen = self.text.index(text, self._seen) + len(text)

    def wait(self, timeout_s: float = 20) -> int:
        """Wait for the end of the command; returns its exit code."""
        until = time.monotonic() + timeout_s
        while self._read(until - time.monotonic()):
            pass
        return self._popen.wait(max(0.0, until - time.monotonic()))

    def _read(self, timeout_s: float) -> bool:
        """Take what is shown next; False at its end, or where nothing comes in time."""
        if timeout_s <= 0 or not select([self._fd], [], [], timeout_s)[0]:
            return False
        try:
            shown = os.read(self._fd, 65536)
        except OSError:  # how Linux says that the other side has closed
            return False
        self.text += shown.decode(errors="replace")
        return bool(shown)


def mock(**behaviour: Any) -> Sequence[str]:
    """Options that tell the mock engine how to behave."""
    return ["--engine", "mock", "--metadata", json.dumps({"mock": behaviour})]
