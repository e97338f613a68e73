"""The processes of a stack together: started, buried, replaced and stopped in order."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog

from textgen.stack.address import LockedFile
from textgen.stack.bell import Bell
from textgen.stack.child import Child, Role, how_it_ended
from textgen.stack.guardian import Guardian
from textgen.stack.plan import STAGES

log = structlog.get_logger(__name__)

#: Seconds before a process that died is started again; doubles up to the cap while it keeps dying.
RESTART_BASE_S, RESTART_CAP_S = 0.25, 10.0
#: Seconds after which a process no longer counts as one that keeps dying.
STEADY_S = 10.0


class Crew:
    """The children of one supervisor.

    Args:
        log_dir: Where each child's output goes, to `<name>.log`.
        lock: Held by the guard and by all children, so that it is free once nothing runs any more.
        bell: Rings when a child ends or somebody wants the stack to stop.
    """

    def __init__(self, log_dir: Path, lock: LockedFile, bell: Bell) -> None:
        self.log_dir, self.bell = log_dir, bell
        self.running: dict[str, Child] = {}
        #: How often each was started again; its keys are all names, in their order of starting.
        self.restarts: dict[str, int] = {}
        self._due: dict[str, tuple[float, Role]] = {}
        self._deaths_in_a_row: dict[str, int] = {}
        self._lock = lock
        self._guardian = Guardian(lock)

    def log_of(self, name: str) -> Path:
        """The log file of one process."""
        return self.log_dir / f"{name}.log"

    def start(self, role: Role) -> None:
        """Start a process of this role."""
        self.restarts.setdefault(role.name, 0)
        self.running[role.name] = Child.start(
            role,
            os.environ,
            self.log_of(role.name),
            self._lock.fileno(),
            lambda group: self._guardian.expect(role.stage, group),
        )

    def bury(self) -> dict[str, int]:
        """Take out those that have ended, with all that they left; returns name → exit code."""
        ended = {
            name: code for name, child in self.running.items() if (code := child.exit_code()) is not None
        }
        for name in ended:
            self._clear(self.running.pop(name))
        return ended

    def look_after(self) -> bool:
        """Replace what has died, as soon as it is due; says whether anything changed."""
        if self._guardian.keep_alive(self.running.values()):
            log.warning("the guard died and was replaced")
        before = dict(self.running)
        ended = self.bury()
        for name, code in ended.items():
            self._schedule(before[name], code)
        now = time.monotonic()
        due = [role for at, role in self._due.values() if at <= now]
        for role in due:
            del self._due[role.name]
            self._start_again(role)
        return bool(ended or due)

    def _start_again(self, role: Role) -> None:
        try:
            self.start(role)
        except OSError as exc:  # no memory or no process left on this machine
            self._due[role.name] = (time.monotonic() + RESTART_CAP_S, role)
            log.error("cannot be started", process=role.name, reason=str(exc), next_in_s=RESTART_CAP_S)
            return
        self.restarts[role.name] += 1
        log.warning("started again", process=role.name, pid=self.running[role.name].pid)

    def next_due_s(self, at_most_s: float) -> float:
        """Seconds until something must be started again."""
        now = time.monotonic()
        return min([at_most_s, *(at - now for at, _ in self._due.values())])

    def _schedule(self, child: Child, code: int) -> None:
        name = child.role.name
        steady = child.lived_s > STEADY_S
        deaths = self._deaths_in_a_row[name] = 1 if steady else self._deaths_in_a_row.get(name, 0) + 1
        delay_s = min(RESTART_CAP_S, RESTART_BASE_S * 2 ** (deaths - 1))
        self._due[name] = (time.monotonic() + delay_s, child.role)
        log.warning(f"{name} {how_it_ended(code)}", pid=child.pid, lived_s=child.lived_s, next_in_s=delay_s)

    def stop(self) -> None:
        """Stop all, stage by stage; a further request to stop cuts the waiting short."""
        self._due.clear()
        stops = self.bell.stops
        for stage in sorted({child.role.stage for child in self.running.values()}):
            leaving = [child for child in self.running.values() if child.role.stage == stage]
            for child in leaving:
                log.info("stopping", process=child.role.name, pid=child.pid, at_most_s=child.role.grace_s)
                child.terminate()
            self._await(leaving, stops)
            for child in leaving:
                del self.running[child.role.name]
                self._clear(child)
        self._guardian.dismiss()

    def _await(self, leaving: Iterable[Child], stops: int) -> None:
        started = time.monotonic()
        left = list(leaving)
        while left := [child for child in left if child.exit_code() is None]:
            patience_s = min(child.role.grace_s for child in left)
            hurried = self.bell.stops > stops and left[0].role.stage != STAGES["valkey"]
            if hurried or time.monotonic() - started > patience_s:
                log.warning("did not stop in time; killed", processes=[child.role.name for child in left])
                return
            self.bell.wait(0.5)

    def _clear(self, child: Child) -> None:
        child.kill_group()
        child.reap()
        self._guardian.forget(child)

    def pids(self) -> dict[str, int]:
        """Name → process id of what runs."""
        return {name: self.running[name].pid for name in self.restarts if name in self.running}

    def as_list(self) -> list[dict[str, Any]]:
        """What runs or will run again, for `textgen ps`."""
        return [self._row(name, count) for name, count in self.restarts.items()]

    def _row(self, name: str, restarts: int) -> dict[str, Any]:
        child = self.running.get(name)
        return {
            "name": name,
            "pid": child.pid if child else None,
            "state": "running" if child else "restarting",
            "started_at": child.started_at.isoformat() if child else None,
            "restarts": restarts,
        }
