"""The supervisor: brings a plan up, says so once all is healthy, and keeps it up until told to stop.

It has one thread and does all its work between two rings of a bell.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from textgen import logs
from textgen.settings import get_settings
from textgen.stack import probes
from textgen.stack.bell import Bell
from textgen.stack.child import bound_log, how_it_ended, last_lines
from textgen.stack.crew import Crew
from textgen.stack.errors import StackError
from textgen.stack.locks import StackLocks, claim
from textgen.stack.options import Options
from textgen.stack.plan import Plan, make

log = structlog.get_logger(__name__)

#: Seconds in which all must be healthy; most of them are for a slow machine that loads a model.
START_S = 120.0
#: Seconds between two looks at what starts, and at the sizes of the logs.
LOOK_S, TIDY_S = 0.1, 10.0

#: Called once with the address when all is healthy.
Announce = Callable[[Mapping[str, Any]], None]
Probe = Callable[[], str | None]


def serve(options: Options, announce: Announce) -> None:
    """Run the stack of `options` until a signal stops it.

    Raises:
        ConfigurationError: It cannot be started as configured.
        StackError: One already runs on the state directory, or this one did not become healthy, be it
            only because it was told to stop.
    """
    os.umask(0o077)
    logs.configure()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Held until this process has ended, so that `textgen down` returns no sooner.
    locks = claim(options.state_dir)
    plan = make(options)
    # This process and its children see the same settings, the embedded server's address included.
    os.environ.update(plan.env)
    get_settings.cache_clear()
    Supervisor(plan, locks).run(announce)


class Supervisor:
    """Runs one plan."""

    def __init__(self, plan: Plan, locks: StackLocks) -> None:
        self.plan, self.locks = plan, locks
        self.bell = Bell()
        self.started_at = datetime.now(UTC)
        self.crew = Crew(plan.state_dir / "log", locks.processes, self.bell)

    def run(self, announce: Announce) -> None:
        """Bring everything up, announce it, keep it up, and stop it all in the end."""
        try:
            if not self._bring_up():
                raise StackError("told to stop before all was healthy")
            self.locks.publish(self._content("running"))
            announce(self.address())
            self._keep_up()
        finally:
            self.crew.stop()
            log.info("everything has stopped")

    def address(self) -> dict[str, Any]:
        """How the stack is reached and what it consists of."""
        return {**self.plan.address, "pids": {"supervisor": os.getpid(), **self.crew.pids()}}

    def _content(self, state: str) -> dict[str, Any]:
        own = {
            "name": "supervisor",
            "pid": os.getpid(),
            "state": state,
            "started_at": self.started_at.isoformat(),
            "restarts": 0,
        }
        patience_s = sum(role.grace_s for role in self.plan.roles)
        return {
            **self.address(),
            "stops_within_s": patience_s,
            "processes": [own, *self.crew.as_list()],
        }

    def _bring_up(self) -> bool:
        """Start all processes, their server first; says whether all is healthy (not told to stop)."""
        self.locks.state.write(self._content("starting"))
        server = [role for role in self.plan.roles if role.name == "valkey"]
        others = [role for role in self.plan.roles if role.name != "valkey"]
        for roles in (server, others):
            for role in roles:
                self.crew.start(role)
                log.info("started", process=role.name, pid=self.crew.running[role.name].pid)
            self.locks.state.write(self._content("starting"))
            if not self._healthy({role.name: self._probe(role.name) for role in roles}):
                return False
        return True

    def _probe(self, name: str) -> Probe:
        plan = self.plan
        if name in plan.nodes:
            return lambda: probes.worker_trouble(plan.nodes[name])
        known: dict[str, Probe] = {
            "valkey": lambda: probes.server_trouble(plan.redis_url),
            "web": lambda: probes.page_trouble(f"{plan.web}/readyz"),
            "flower": lambda: probes.page_trouble(f"{plan.flower}/healthcheck"),
        }
        return known[name]

    def _healthy(self, waiting: dict[str, Probe]) -> bool:
        deadline = time.monotonic() + START_S
        while waiting and not self.bell.stops:
            for name, code in self.crew.bury().items():
                raise self._failure(f"{name} {how_it_ended(code)} while the stack started", name)
            trouble = {name: found for name, probe in waiting.items() if (found := probe())}
            if trouble and time.monotonic() > deadline:
                name, found = next(iter(trouble.items()))
                raise self._failure(f"{name} is not healthy after {START_S:.0f} s: {found}", name)
            waiting = {name: waiting[name] for name in trouble}
            if waiting:
                self.bell.wait(LOOK_S)
        return not self.bell.stops

    def _failure(self, message: str, name: str) -> StackError:
        path = self.crew.log_of(name)
        return StackError.of(f"{message}; its log is {path}", last_lines(path))

    def _keep_up(self) -> None:
        tidied = time.monotonic()
        while not self.bell.stops:
            if self.crew.look_after():
                self.locks.publish(self._content("running"))
            if time.monotonic() - tidied > TIDY_S:
                for path in self.crew.log_dir.glob("*.log"):
                    bound_log(path)
                tidied = time.monotonic()
            self.bell.wait(self.crew.next_due_s(TIDY_S))
