"""Children of the supervisor, with small programs standing in for the real ones."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.processes import wait_until
from textgen.stack.address import LockedFile
from textgen.stack.bell import STOP_SIGNALS, Bell
from textgen.stack.child import LOG_BYTES, Role, bound_log, last_lines
from textgen.stack.crew import Crew
from textgen.stack.plan import STAGES

#: Writes its name to the file in ORDER when it is asked to end, and ends.
POLITE = """
import os, signal, sys
def leave(*_):
    with open(os.environ["ORDER"], "a") as file:
        file.write(sys.argv[1] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
while True:
    signal.pause()
"""
#: Does not end when asked, and has a child that does not either.
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
print("ready", flush=True)
while True:
    signal.pause()
"""


def role(name: str, program: str = POLITE, grace_s: float = 10) -> Role:
    stage = STAGES[name.partition("-")[0]]
    return Role(name, (sys.executable, "-c", program, name), stage, grace_s)


@pytest.fixture
def bell() -> Iterator[Bell]:
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGCHLD)}
    yield Bell()
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def start_crew(tmp_path: Path, bell: Bell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Crew]]:
    monkeypatch.setenv("ORDER", str(tmp_path / "order"))
    lock = LockedFile(tmp_path / "processes.lock")
    lock.acquire()
    crew = Crew(tmp_path / "log", lock, bell)

    def start(*roles: Role) -> Crew:
        for each in roles:
            crew.start(each)
        for each in roles:
            wait_until(partial(is_ready, crew.log_of(each.name)), 10, f"{each.name} runs")
        return crew

    yield start
    for child in crew.running.values():
        child.kill_group()
    lock.release()


def is_ready(log: Path) -> bool:
    return "ready" in last_lines(log)


def gone(group: int) -> bool:
    """Whether no process of this group runs."""
    alive = (p for p in psutil.process_iter(["status"]) if p.info["status"] != psutil.STATUS_ZOMBIE)
    return not any(_group_of(process.pid) == group for process in alive)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def test_a_crew_stops_in_order_with_the_server_last(start_crew: Callable[..., Crew], tmp_path: Path) -> None:
    crew = start_crew(role("valkey"), role("worker-1"), role("web"), role("flower"))
    crew.stop()
    assert (tmp_path / "order").read_text().split() == ["web", "flower", "worker-1", "valkey"]
    assert not crew.running


def test_what_does_not_stop_in_time_is_killed_with_its_children(start_crew: Callable[..., Crew]) -> None:
    crew = start_crew(role("worker-1", STUBBORN, grace_s=0.3))
    group = crew.running["worker-1"].pid
    crew.stop()
    wait_until(lambda: gone(group), 5, "the whole group is gone")


def test_a_second_request_to_stop_cuts_the_waiting_short(start_crew: Callable[..., Crew], bell: Bell) -> None:
    crew = start_crew(role("worker-1", STUBBORN, grace_s=600))
    group = crew.running["worker-1"].pid
    asker = [sys.executable, "-c", f"import os, signal; os.kill({os.getpid()}, signal.SIGTERM)"]
    with subprocess.Popen(asker):
        crew.stop()
    assert bell.stops == 1
    wait_until(lambda: gone(group), 5, "the whole group is gone")


def test_a_child_that_died_is_started_again_without_its_leftovers(start_crew: Callable[..., Crew]) -> None:
    crew = start_crew(role("worker-1", STUBBORN, grace_s=0.1))
    first = crew.running["worker-1"].pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: crew.look_after() and "worker-1" in crew.running, 5, "another one runs")
    assert crew.running["worker-1"].pid != first
    assert [row["restarts"] for row in crew.as_list()] == [1]
    wait_until(lambda: gone(first), 5, "the child of the first is gone")
    crew.stop()


def test_a_child_that_keeps_dying_is_started_ever_later(start_crew: Callable[..., Crew]) -> None:
    crew = start_crew()
    crew.start(role("worker-1", "raise SystemExit(3)"))
    waits: list[float] = []

    def dies_again() -> bool:
        if crew.look_after() and "worker-1" not in crew.running:
            waits.append(crew.next_due_s(60))
        return len(waits) == 3

    wait_until(dies_again, 20, "it has died three times")
    assert waits[1] > 1.5 * waits[0]
    assert waits[2] > 1.5 * waits[1]
    crew.stop()


def test_a_guard_that_was_killed_is_replaced(start_crew: Callable[..., Crew]) -> None:
    crew = start_crew(role("web"))
    (guard,) = [p for p in psutil.Process().children() if "textgen.stack.guard" in p.cmdline()]
    guard.kill()
    guard.wait(5)
    crew.look_after()
    (replaced,) = [p for p in psutil.Process().children() if "textgen.stack.guard" in p.cmdline()]
    assert replaced.pid != guard.pid
    crew.stop()
    assert not replaced.is_running()


SUPERVISOR = """
import signal, sys
from pathlib import Path
from tests.faults.test_stack_crew import POLITE, STUBBORN, role
from textgen.stack.address import LockedFile
from textgen.stack.bell import Bell
from textgen.stack.crew import Crew
folder = Path(sys.argv[1])
lock = LockedFile(folder / "processes.lock")
lock.acquire()
crew = Crew(folder / "log", lock, Bell())
crew.start(role("valkey"))
crew.start(role("worker-1", STUBBORN))
crew.start(role("web"))
while any("ready" not in crew.log_of(name).read_text() for name in crew.running):
    pass
print(*(child.pid for child in crew.running.values()), flush=True)
signal.pause()
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process of its own; it has printed the process groups of its children."""
    env = os.environ | {"ORDER": str(tmp_path / "order"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path, supervisor: subprocess.Popen[str]) -> None:
    groups = [int(pid) for pid in supervisor.stdout.readline().split()]
    assert len(groups) == 3
    supervisor.kill()
    lock = LockedFile(tmp_path / "processes.lock")
    assert lock.acquire(timeout_s=15), "it is held until all are gone"
    wait_until(lambda: all(gone(group) for group in groups), 2, "all groups are gone")
    assert (tmp_path / "order").read_text().split() == ["web", "valkey"]
    lock.release()


def test_a_stack_whose_guard_was_killed_too_is_not_taken_for_gone(
    tmp_path: Path, supervisor: subprocess.Popen[str]
) -> None:
    groups = [int(pid) for pid in supervisor.stdout.readline().split()]
    (guard,) = [p for p in psutil.Process(supervisor.pid).children() if "textgen.stack.guard" in p.cmdline()]
    supervisor.send_signal(signal.SIGSTOP)  # or it would replace the guard
    guard.kill()
    supervisor.kill()
    supervisor.wait(5)
    lock = LockedFile(tmp_path / "processes.lock")
    assert not lock.acquire()
    for group in groups:
        os.killpg(group, signal.SIGKILL)
    assert lock.acquire(timeout_s=5)
    lock.release()


def test_a_log_that_grew_too_long_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"x" * (LOG_BYTES + 1))
        bound_log(path)
        writer.write(b"next\n")
    assert path.read_bytes() == b"next\n"
    assert (tmp_path / "web.log.1").stat().st_size == LOG_BYTES + 1
