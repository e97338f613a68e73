"""A running textgen that faults are done to: what both kinds of stack have in common.

A world is a stack with two kinds of workers (threads and prefork), a web app, traffic from outside,
and everything that is known about it: its history, its ledger and a direct view into its Redis.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import redis

from tests.environment import Environment
from tests.faults import gates, ledger
from tests.faults.history import History
from tests.processes import Process, wait_until

ROOT = Path(__file__).resolve().parents[2]
#: Both lanes.
LANES = ("text_generation_tasks", "text_generation_tasks.bulk")
#: Seconds in which every submit has to be answered, and in which every task has to end.
ANSWER_S, END_S = 10.0, 60.0
#: The key of all clients but one.
ADMIN_KEY = f"tg_{'a' * 43}"
AS_ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
#: What Flower's page asks for to fill its table of tasks.
FLOWERS_TABLE = {"draw": "1", "start": "0", "length": "100000", "search[value]": ""}
FLOWERS_TABLE |= {"order[0][column]": "0", "order[0][dir]": "asc", "columns[0][data]": "name"}
#: Who reads what is not theirs.
STRANGER = "stranger"
#: Settings under which the faults strike: the shipped ones, but for times that would make a run long.
SETTINGS = {
    "TEXTGEN_ADMIN_KEY": ADMIN_KEY,
    "TEXTGEN_ENGINE": "ledger",
    "TEXTGEN_LEASE_S": "3",
    "TEXTGEN_RETRY_BASE_S": "0.2",
    "TEXTGEN_MAX_ATTEMPTS": "3",
    "TEXTGEN_ATTEMPT_MARGIN_S": "2",
    "TEXTGEN_SHUTDOWN_GRACE_S": "5",
    "TASK_TTL": "1800",
    "TEXTGEN_WEBHOOK_ALLOW": "127.0.0.0/8",
    "TEXTGEN_WEBHOOK_TIMEOUT_S": "2",
    "TEXTGEN_WEBHOOK_RETRIES_S": "1,1,1,1",
    # a web process that does not come back to its loop is replaced after so many seconds
    "GUNICORN_CMD_ARGS": "--timeout 4",
}


class NotInPhase(AssertionError):
    """The task was not in the phase in which the fault was to strike: the row shows nothing."""


@dataclass(frozen=True)
class Task:
    """A task that a row submitted."""

    id: str
    op: str
    #: The main process of the worker that runs it, and the process that does (pool's child or the same).
    worker: int = 0
    pid: int = 0


@dataclass
class Answer:
    """How a submit was answered."""

    op: str
    status: int | None
    id: str | None = None
    took_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


class World(ABC):
    """One stack under faults.

    Args:
        folder: For its data, logs, ledger and gates.
        history: Where all that is asked and answered is written down.
        choice: The run's source of chance.
        source: The folder that holds the `textgen` to run.
    """

    kind: str
    url: str
    flower_url: str
    store: redis.Redis

    def __init__(self, folder: Path, history: History, choice: random.Random, source: Path = ROOT) -> None:
        self.folder, self.history, self.choice = folder, history, choice
        self.canary = f"canary{choice.getrandbits(64):016x}"
        self.ledger = folder / "ledger.jsonl"
        self.gates = folder / "gates"
        #: When the fault that was last done was over.
        self.healed_at = time.time()
        #: When the records were last wiped.
        self.emptied_at = 0.0
        #: When the messages were wiped with them.
        self.lost_at = 0.0
        #: Submits that are in flight while a web process is killed may stay without an answer.
        self.kills_web = False
        self._ops = 0
        self._stranger = self._stranger_id = ""
        self._lock = threading.Lock()
        self.gates.mkdir()
        plug = folder / "plug"
        (plug / "textgen_faults-1.dist-info").mkdir(parents=True)
        (plug / "sitecustomize.py").write_text("from tests.faults.gates import install\n\ninstall()\n")
        (plug / "textgen_faults-1.dist-info" / "METADATA").write_text("Name: textgen-faults\nVersion: 1\n")
        (plug / "textgen_faults-1.dist-info" / "entry_points.txt").write_text(
            "[textgen.engines]\nledger = tests.faults.ledger:LedgerEngine\n"
        )
        self.variables: Environment = {
            **SETTINGS,
            ledger.LEDGER: str(self.ledger),
            gates.FOLDER: str(self.gates),
            "PYTHONPATH": os.pathsep.join(map(str, dict.fromkeys([source, plug, ROOT]))),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self.ledger.touch()

    # What the two kinds do differently

    @abstractmethod
    def start(self) -> None:
        """Bring everything up; returns when it serves."""

    @abstractmethod
    def stop(self) -> None:
        """End everything that was started."""

    @abstractmethod
    def nodes(self) -> dict[str, str]:
        """Celery's name of each worker that is to run → its pool."""

    @abstractmethod
    def pid_of(self, node: str) -> int:
        """The main process of a worker."""

    @abstractmethod
    def ensure(self) -> None:
        """Start again what is down, and return when all workers and the web app serve."""

    @abstractmethod
    def kill_store(self, lose_data: bool = False) -> None:
        """End the store with SIGKILL; its data may be lost with it."""

    @abstractmethod
    def start_store(self) -> None:
        """Start it again, where nobody else does."""

    @property
    @abstractmethod
    def store_pid(self) -> int:
        """The process of the store."""

    @abstractmethod
    def queue_depths(self) -> dict[str, int]:
        """Queue → messages in it, unacknowledged ones included."""

    @abstractmethod
    def logs(self) -> list[Path]:
        """The logs of all processes."""

    @abstractmethod
    def connections(self) -> tuple[int, int | None]:
        """Connections to the broker, and channels of them where it has any."""

    # Asking

    def op(self) -> str:
        """A new name of a request."""
        with self._lock:
            self._ops += 1
            return f"op{self._ops}"

    def submit(
        self, op: str = "", *, prompt: str = "", key: str | None = None, mock: Any = None, **fields: Any
    ) -> Answer:
        """Submit over HTTP and write down how it was answered."""
        op = op or self.op()
        extra = fields.pop("metadata", {})
        body = {
            "prompt": f"{op} {self.canary} {prompt}",
            "engine": "ledger",
            "max_tokens": 5000,
            "metadata": {"op": op, "mock": mock or {}, **extra},
            **fields,
        }
        headers = AS_ADMIN | ({"Idempotency-Key": key} if key else {})
        began = time.time()
        answer = Answer(op, None)
        try:
            got = httpx.post(f"{self.url}/v1/tasks", json=body, headers=headers, timeout=2 * ANSWER_S)
        except httpx.TransportError as exc:
            failure = repr(exc)
        else:
            failure = None
            known = got.json().get("task_id") if got.status_code in (200, 202) else None
            answer = Answer(op, got.status_code, known, headers=dict(got.headers))
            if known is None and self.canary in got.text:
                self.history.write("leak", at=time.time(), where=f"the answer to {op}")
        ended = time.time()
        answer.took_s = ended - began
        self.history.write(
            "submit",
            at=began,
            until=ended,
            how="http",
            op=op,
            owner="default",
            key=key,
            status=answer.status,
            id=answer.id,
            retry_after="retry-after" in answer.headers,
            replayed="idempotent-replayed" in answer.headers,
            killed=failure is not None and self.kills_web,
            failure=failure,
            visible=None,
        )
        return answer

    def delay(self, how: str = "delay") -> Answer:
        """Submit from Python, by `delay`, in a `group` or as a `chain`, and write down how it went."""
        from celery import chain, group

        from textgen.errors import Unavailable
        from textgen.tasks import generate

        op, status = self.op(), 503
        one = generate.s(f"{op} {self.canary}", metadata={"op": op, "mock": {"tokens": 3}})
        ways = {"delay": one, "group": group(one), "chain": chain(one, generate.s())}
        began, task_id = time.time(), None
        with suppress(Unavailable):
            result = ways[how].apply_async()
            first = result.parent if how == "chain" else result.children[0] if how == "group" else result
            status, task_id = 202, first.id
        answer = Answer(op, status, task_id, took_s=time.time() - began)
        self.history.write(
            "submit", at=began, until=began + answer.took_s, how=how, op=op, owner="default", key=None,
            status=status, id=task_id, retry_after=True, replayed=False, killed=False, visible=None,
        )  # fmt: skip
        return answer

    def accept(self, **fields: Any) -> Task:
        """Submit what has to be accepted."""
        answer = self.submit(**fields)
        assert answer.status == 202, f"{answer.op} was answered {answer.status}"
        assert answer.id is not None
        return Task(answer.id, answer.op)

    def refused(self, **fields: Any) -> Answer:
        """Submit what has to be refused with 503 or 429, in time and with a `Retry-After`."""
        answer = self.submit(**fields)
        assert answer.status in (503, 429), f"{answer.op} was answered {answer.status}, not refused"
        assert answer.took_s <= ANSWER_S, f"{answer.op} was answered after {answer.took_s:.1f} s"
        assert "retry-after" in answer.headers, f"{answer.op} was refused without Retry-After"
        return answer

    def read(
        self, task_id: str, owner: str = "default", headers: dict[str, str] = AS_ADMIN
    ) -> dict[str, Any] | None:
        """Read a record over HTTP, and write down what was seen."""
        began = time.time()
        status, record = None, None
        try:
            got = httpx.get(f"{self.url}/v1/tasks/{task_id}", headers=headers, timeout=2 * ANSWER_S)
            status = got.status_code
            record = got.json() if status == 200 else None
        except httpx.TransportError:
            pass
        seen = digest(record) if record else None
        self.history.write(
            "read", at=began, until=time.time(), owner=owner, id=task_id, status=status, record=seen,
            owner_of=record["owner"] if record else None,
        )  # fmt: skip
        return record

    def pry(self, task_id: str) -> None:
        """Read a record with the key of another owner, who must be told nothing."""
        from textgen import api_keys
        from textgen.errors import StoreUnavailable

        with self._lock, suppress(StoreUnavailable):
            # the faults wipe the store, and keys with it
            if not any(key.id == self._stranger_id for key in api_keys.every(STRANGER)):
                known, self._stranger = api_keys.create("stranger", STRANGER)
                self._stranger_id = known.id
        self.read(task_id, STRANGER, {"Authorization": f"Bearer {self._stranger}"})

    def cancel(self, task_id: str) -> int | None:
        """Cancel over HTTP; returns the status of the answer."""
        began, status = time.time(), None
        with suppress(httpx.TransportError):
            status = httpx.post(
                f"{self.url}/v1/tasks/{task_id}/cancel", headers=AS_ADMIN, timeout=2 * ANSWER_S
            ).status_code
        self.history.write("cancel", at=began, until=time.time(), id=task_id, status=status)
        return status

    @contextmanager
    def emptying(self, event: str = "emptied") -> Iterator[None]:
        """The time in which all records are wiped."""
        self.history.write("store", at=time.time(), event=event)
        try:
            yield
        finally:
            self.emptied_at = time.time()
            self.history.write("store", at=self.emptied_at, event=event)

    @contextmanager
    def losing_all(self) -> Iterator[None]:
        """The time in which all records and all messages are wiped."""
        try:
            with self.emptying("lost_all"):
                yield
        finally:
            self.lost_at = self.emptied_at

    # Looking

    def record(self, task_id: str) -> dict[str, Any] | None:
        """The record as Redis has it at this moment."""
        text = self.store.get(f"task:{task_id}")
        return json.loads(text) if text else None

    def status(self, task: Task) -> str | None:
        """The status as Redis has it, or None while it does not answer or has none."""
        try:
            record = self.record(task.id)
        except redis.RedisError:
            return None
        return record["status"] if record else None

    def lines(self, kind: str, **where: Any) -> list[dict[str, Any]]:
        """Lines of the ledger, with the time of each as seconds since 1970."""
        found = (json.loads(line) for line in self.ledger.read_text().splitlines())
        started = time.time() - ledger.uptime_s()
        return [
            line | {"at": line["at"] + started}
            for line in found
            if line["kind"] == kind and all(line.get(name) == value for name, value in where.items())
        ]

    def begins(self, task: Task) -> int:
        """How many attempts at a task began to generate."""
        return len(self.lines("run", id=task.id, step="begin"))

    def settled(self, task: Task, *statuses: str, within_s: float = END_S) -> dict[str, Any]:
        """Wait until a task is terminal, in one of `statuses` if any are given; returns its record."""
        terminal = ("COMPLETED", "FAILED", "CANCELLED")
        wait_until(lambda: self.status(task) in terminal, within_s, f"{task.op} ({task.id}) is terminal")
        wait_until(lambda: self.read(task.id) is not None, ANSWER_S, f"{task.id} can be read over HTTP")
        record = self.read(task.id)
        assert record is not None
        assert not statuses or record["status"] in statuses, f"{task.op} ended {record['status']}"
        return record

    def deliveries(self, task: Task) -> int:
        """How often a worker received the message of a task."""
        return sum(log.read_text(errors="replace").count(f"[{task.id}] received") for log in self.logs())

    def pages(self) -> Iterator[tuple[str, str]]:
        """What Flower shows to anybody: path, text."""
        for path in ("/tasks/datatable", "/metrics", "/workers?json=true"):
            method = "POST" if "datatable" in path else "GET"
            yield path, httpx.request(method, f"{self.flower_url}{path}", data=FLOWERS_TABLE, timeout=20).text

    # Bringing tasks into a phase

    @contextmanager
    def only(self, pool: str | None) -> Iterator[None]:
        """Let only the workers of one pool, or none, take tasks."""
        others = [node for node, kind in self.nodes().items() if kind != pool]
        if others:
            self._consume("cancel_consumer", others)
        try:
            yield
        finally:
            left = [node for node in self.nodes() if node in others]
            if left:
                self._consume("add_consumer", left)

    def _consume(self, command: str, nodes: list[str]) -> None:
        from textgen.celery import app

        # a connection of its own each time: one from before a fault may be dead without knowing it
        with app.connection_for_write() as connection:
            for lane in LANES:
                act = partial(
                    getattr(app.control, command), lane, destination=nodes, connection=connection, reply=True
                )
                wait_until(lambda act=act: len(act(timeout=3) or []) >= len(nodes), 20, f"{nodes} obey")

    def running(self, pool: str = "threads", *, seconds: float = 4.0, mock: Any = None, **more: Any) -> Task:
        """Submit a task of some seconds and return it while a worker of this pool generates."""
        task = self.begun(pool, seconds, mock, **more)
        self.in_phase(task, "PROCESSING")
        return task

    def begun(self, pool: str, seconds: float, mock: Any = None, **more: Any) -> Task:
        """Submit a task of some seconds and return it when a worker of this pool has begun it."""
        plan = {"delay_s": 0.1, "tokens": int(seconds * 10), **(mock or {})}
        with self.only(pool):
            task = self.accept(mock=plan, **more)
            wait_until(lambda: self.begins(task), 30, f"{task.op} begins")
        line = self.lines("run", id=task.id, step="begin")[0]
        task = Task(task.id, task.op, line["ppid"] if pool == "prefork" else line["pid"], line["pid"])
        node = next((n for n in self.nodes() if self.pid_of(n) == task.worker), None)
        if node is None or self.nodes()[node] != pool:
            raise NotInPhase(f"{task.op} runs in process {line['pid']}, on no worker of pool {pool}")
        return task

    def queued(self, **more: Any) -> Task:
        """Submit a task where nobody takes one (see `only`)."""
        task = self.accept(**more)
        self.in_phase(task, "PENDING")
        return task

    def at_gate(self, gate: str, pool: str = "threads", **more: Any) -> Task:
        """Submit a task that stops at a gate of the worker, and return it when it is there."""
        task = self.begun(pool, 0.3, metadata={"gate": gate}, **more)
        wait_until(lambda: self.lines("gate", id=task.id), 20, f"{task.op} is at gate {gate}")
        self.in_phase(task, "PROCESSING" if gate == "write" else "COMPLETED")
        return task

    def open(self, task: Task) -> None:
        """Open the gate at which a task stands."""
        (self.gates / task.id).touch()

    def in_phase(self, task: Task, status: str) -> None:
        """Make sure that a task is in the phase in which the fault is to strike."""
        found = self.status(task)
        if found != status:
            raise NotInPhase(f"{task.op} is {found}, not {status}")

    def await_attempt(self, task: Task, attempt: int, within_s: float = 30.0) -> None:
        """Wait until the given attempt at a task generates."""
        wait_until(
            lambda: self.lines("run", id=task.id, step="begin", attempt=attempt),
            within_s,
            f"attempt {attempt} at {task.op} begins",
        )

    @contextmanager
    def fault(self) -> Iterator[None]:
        """The time in which the fault holds; what follows is recovery."""
        try:
            yield
        finally:
            self.healed_at = time.time()

    # Connections that share the fate of the stack

    def enter(self, env: Environment) -> None:
        """Let this process use the stack through `textgen.client` and `textgen.celery`."""
        os.environ.update(env)
        sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
        from textgen.settings import get_settings

        get_settings.cache_clear()


def digest(record: dict[str, Any]) -> dict[str, Any]:
    """What the history keeps of a record: no text, so that a history can be shown to anybody."""
    text = record.get("result")
    return {
        "status": record["status"],
        "attempt": record["attempt"],
        "failures": record["failures"],
        "result_sha256": hashlib.sha256(text.encode()).hexdigest() if text is not None else None,
        "error_type": (record.get("error") or {}).get("type"),
        "updated_at": record["updated_at"],
    }


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet buried does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_running(process: Process) -> bool:
    """Whether a child of this process runs. One whose end has begun is waited for."""
    if process.is_alive and not is_alive(process.pid):
        process.wait()
    return process.is_alive


def repeat_until(act: Callable[[], Any], good: Callable[[Any], bool], within_s: float, what: str) -> Any:
    """Do something until its outcome is good; returns that outcome."""
    outcomes: list[Any] = []

    def once() -> bool:
        outcomes.append(act())
        return good(outcomes[-1])

    wait_until(once, within_s, what)
    return outcomes[-1]
