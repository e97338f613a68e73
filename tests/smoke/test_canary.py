"""Secrets in every field of a task, in every way in and through every ending, are seen nowhere.

Interactive tasks are run by a worker with threads, bulk tasks by one with child processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from kombu import Connection

from tests.application import application
from tests.browser.flower import FlowerProcess
from tests.environment import Environment, new_folder, of_process
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from tests.receiver import Receiver
from tests.services import PrivateRabbitMQ

QUEUE = "text_generation_tasks"
#: Seconds that anything may take here at the most.
PATIENCE_S = 40
#: Where a secret stands → the secret.
CANARIES = {
    place: f"canary{uuid.uuid4().hex}" for place in ("prompt", "system", "metadata", "stop", "result")
}
CANARIES["key"] = f"sk-{uuid.uuid4().hex}"
CANARIES["API key"] = f"tg_{uuid.uuid4().hex}"
CANARIES["wrong API key"] = f"tg_{uuid.uuid4().hex}"
CANARIES["webhook address"] = f"canary{uuid.uuid4().hex}"

#: The worker of each lane.
POOLS = {"interactive": "threads", "bulk": "prefork"}
SLOTS = 2
ENDINGS = {"completes": "COMPLETED", "permanent": "FAILED", "raises": "FAILED", "transient": "COMPLETED"}
#: Submits what it finds on stdin as other people's code does; prints the ids.
DELAY = """
import json, sys
from textgen.tasks import generate
print(json.dumps([generate.delay(prompt, **fields).id for prompt, fields in json.load(sys.stdin)]))
"""
#: What Flower's table of tasks and its API show.
FLOWER_PATHS = ("/tasks/datatable?draw=1&start=0&length=1000&order[0][column]=0&columns[0][data]=name",)
FLOWER_PATHS += ("/", "/workers?json=true", "/broker", "/metrics", "/api/workers?refresh=true", "/api/tasks")


@dataclass(frozen=True)
class Traces:
    """What was left to be seen, each by what it is."""

    #: Task id → how it ended.
    tasks: dict[str, str]
    running: list[str]
    inspected: dict[str, str]
    events: list[dict[str, Any]]
    pages: dict[str, str]
    dead: list[Any]
    logs: dict[str, str]


def assert_hidden(texts: dict[str, str]) -> None:
    """Nothing of `texts` holds a secret; says what holds which."""
    found = {what: [p for p, canary in CANARIES.items() if canary in text] for what, text in texts.items()}
    assert {what: places for what, places in found.items() if places} == {}


def fields(act: str, lane: str) -> dict[str, Any]:
    """All of a request but its prompt."""
    metadata = {"act": act, "note": {"deep": [CANARIES["metadata"]]}}
    return {"engine": "canary", "lane": lane, "metadata": metadata, "stop": [CANARIES["stop"]]}


def conversation() -> list[dict[str, str]]:
    turns = {"system": f"Be {CANARIES['system']}", "user": f"Say {CANARIES['prompt']}"}
    return [{"role": role, "content": content} for role, content in turns.items()]


@pytest.fixture(scope="module")
def env(module_stack_env: Callable[..., Environment]) -> Environment:
    """A stack in whose processes another package's engine is installed."""
    package = new_folder("package")
    (package / "canary_engine.py").write_text(Path(__file__).with_name("canary_engine.py").read_text())
    information = package / "canary_engine-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: canary-engine\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[textgen.engines]\ncanary = canary_engine:CanaryEngine\n")
    secrets = {"OPENAI_API_KEY": CANARIES["key"], "CANARY_RESULT": CANARIES["result"]}
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    secrets["TEXTGEN_ADMIN_KEY"] = CANARIES["API key"]
    hooks = {"TEXTGEN_WEBHOOK_ALLOW": "127.0.0.1", "TEXTGEN_WEBHOOK_RETRIES_S": "0.1"}
    given = {"PYTHONPATH": path, "PREFETCH_COUNT": 2, "TEXTGEN_LEASE_S": 2, **secrets, **hooks}
    return module_stack_env("rabbitmq", **given)


@contextmanager
def captured_events(env: Environment) -> Iterator[list[dict[str, Any]]]:
    """What Celery's workers tell, as it comes in."""
    found: list[dict[str, Any]] = []
    with application(env) as app, app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": found.append})
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": None, "timeout": None})
        thread.start()
        try:
            yield found
        finally:
            receiver.should_stop = True
            thread.join()


@pytest.fixture(scope="module")
def traces(env: Environment, rabbitmq: PrivateRabbitMQ) -> Iterator[Traces]:
    with ExitStack() as stack:
        processes: dict[str, Any] = {
            lane: stack.enter_context(WorkerProcess(env, pool, SLOTS, args=("-Q", queue_of(lane))))
            for lane, pool in POOLS.items()
        }
        processes["flower"] = stack.enter_context(FlowerProcess(env | {"FLOWER_UNAUTHENTICATED_API": "true"}))
        processes["web"] = stack.enter_context(WebProcess(env))
        for process in processes.values():
            process.wait_ready()
        web, flower = processes["web"].url, processes["flower"]
        flower.wait_for_workers(len(POOLS))
        events = stack.enter_context(captured_events(env))
        wait_until(lambda: {e["type"] for e in events} >= {"worker-heartbeat"}, PATIENCE_S, "events come")

        CANARIES["webhook secret"] = ask("POST", f"{web}/v1/webhooks/secret").json()["secret"]
        made, said_of_key = command(env, "textgen", "keys", "create", "--name", "canary").communicate()
        CANARIES["made API key"] = made.strip().rsplit("_", 1)[1]
        assert ask("GET", f"{web}/v1/tasks", made.strip()).status_code == 200
        receiver = stack.enter_context(Receiver(500, 302))
        hook = f"{receiver.url}&also={CANARIES['webhook address']}"
        tasks, said = submit_endings(env, web, hook)
        said["textgen keys create"] = said_of_key
        wait_until(lambda: terminal(web, tasks), PATIENCE_S, "all tasks have ended")
        receiver.wait_for(3, PATIENCE_S)
        running, inspected = look_at_running(env, web, [processes[lane].name for lane in POOLS])
        tasks |= dict.fromkeys(running, "CANCELLED")
        dead = dead_letters(env)
        wait_until(lambda: told(events) >= tasks.keys(), PATIENCE_S, "an event of each ending")
        pages = {path: flower.get(path).text for path in [*FLOWER_PATHS, *pages_of(tasks, processes)]}
        for process in processes.values():
            process.stop()
        logs = {name: process.log() for name, process in processes.items()} | said
        yield Traces(
            tasks, running, inspected, events, pages, dead, logs | {"rabbitmq": rabbitmq.process.log()}
        )


def queue_of(lane: str) -> str:
    return QUEUE if lane == "interactive" else f"{QUEUE}.{lane}"


def ask(method: str, url: str, key: str = CANARIES["API key"], **given: Any) -> httpx.Response:
    return httpx.request(method, url, headers={"Authorization": f"Bearer {key}"}, timeout=20, **given)


def submit_endings(env: Environment, web: str, hook: str) -> tuple[dict[str, str], dict[str, str]]:
    """Have tasks end in every way, by every way in; returns how each is to end, and what was said."""
    wanted = [(act, lane) for lane in POOLS for act in ENDINGS] + [("dies", "bulk")]
    prompts = [(f"Say {CANARIES['prompt']}", fields(act, lane)) for act, lane in wanted]
    script = subprocess.Popen(
        [sys.executable, "-c", DELAY], cwd=new_folder("elsewhere"), env=of_process(env), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    single = [
        command(env, "textgen", "single", f"Say {CANARIES['prompt']}", "--system", CANARIES["system"],
                "--json", "--engine", "canary", "--stop", CANARIES["stop"], "--metadata",
                json.dumps({"act": act}))
        for act in ("completes", "raises")
    ]  # fmt: skip
    webhook = {"url": hook}
    bodies = [{"messages": conversation(), "webhook": webhook, **fields(act, lane)} for act, lane in wanted]
    stranger = ask("POST", f"{web}/v1/tasks", CANARIES["wrong API key"], json=bodies[0])
    assert stranger.status_code == 401
    accepted = [ask("POST", f"{web}/v1/tasks", json=body) for body in bodies]
    refused = ask("POST", f"{web}/v1/tasks", json={**bodies[0], "seed": CANARIES["prompt"]})
    printed, warned = script.communicate(json.dumps(prompts), timeout=PATIENCE_S)
    assert refused.status_code == 422
    ends = [ENDINGS.get(act, "COMPLETED") for act, _ in wanted]
    tasks = dict(zip([answer.json()["task_id"] for answer in accepted], ends, strict=True))
    tasks |= dict(zip(json.loads(printed), ends, strict=True))
    said = {"script": warned, "refusal": refused.text, "no entry": stranger.text}
    for process, end in zip(single, ("COMPLETED", "FAILED"), strict=True):
        output, said[f"textgen single, {end}"] = process.communicate(timeout=PATIENCE_S)
        tasks[json.loads(output)["task_id"]] = end
    return tasks, said


def command(env: Environment, module: str, *args: str) -> subprocess.Popen[str]:
    name = {
        "textgen": "from textgen.cli import main; main()",
        "celery": "from celery.__main__ import main; main()",
    }
    arguments = [sys.executable, "-c", f"import sys; sys.argv[0] = {module!r}; {name[module]}", *args]
    return subprocess.Popen(
        arguments, cwd=new_folder(module), env=of_process(env), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def status(web: str, task_id: str) -> str:
    return str(ask("GET", f"{web}/v1/tasks/{task_id}").json()["status"])


def terminal(web: str, tasks: dict[str, str]) -> bool:
    return all(status(web, task_id) == ending for task_id, ending in tasks.items())


def look_at_running(env: Environment, web: str, workers: list[str]) -> tuple[list[str], dict[str, str]]:
    """Inspect workers that run tasks and hold others back; then cancel the tasks, in each way."""
    bodies = [
        {"messages": conversation(), **fields("slow", lane)} for lane in POOLS for _ in range(2 * SLOTS)
    ]
    running = [str(ask("POST", f"{web}/v1/tasks", json=body).json()["task_id"]) for body in bodies]

    def count() -> int:
        return [status(web, task_id) for task_id in running].count("PROCESSING")

    wait_until(lambda: count() == len(POOLS) * SLOTS, PATIENCE_S, "every slot has a task")
    asked = {what: [what] for what in ("active", "reserved", "scheduled", "conf")}
    asked["query_task"] = ["query_task", *running]
    nodes = ",".join(f"{worker}@localhost" for worker in workers)
    started = {
        what: command(env, "celery", "-A", "textgen", "inspect", "-t", "10", "-d", nodes, *args)
        for what, args in asked.items()
    }
    inspected = {what: "".join(process.communicate(timeout=PATIENCE_S)) for what, process in started.items()}
    revoked = command(
        env, "celery", "-A", "textgen", "control", "-t", "10", "-d", nodes, "revoke", *running[:2]
    )
    inspected["control revoke"] = "".join(revoked.communicate(timeout=PATIENCE_S))
    for task_id in running:
        ask("POST", f"{web}/v1/tasks/{task_id}/cancel")
    wait_until(lambda: terminal(web, dict.fromkeys(running, "CANCELLED")), PATIENCE_S, "all are cancelled")
    return running, inspected


def dead_letters(env: Environment) -> list[Any]:
    """Send a message that is none and has secrets in it; returns what is among the dead letters."""
    bad = [[f"Say {CANARIES['prompt']}"], {**fields("completes", "bulk"), "nonsense": CANARIES["system"]}, {}]
    headers = {"task": "textgen.tasks.generate", "id": str(uuid.uuid4())}
    with Connection(env["CELERY_BROKER_URL"]) as connection:
        channel = connection.channel()
        message = channel.prepare_message(
            json.dumps(bad), content_type="application/json", content_encoding="utf-8", headers=headers
        )
        channel.basic_publish(message, exchange="", routing_key=QUEUE)
        found: list[Any] = []

        def arrived() -> bool:
            while (letter := channel.basic_get(f"{QUEUE}.dead", no_ack=True)) is not None:
                found.append(letter)
            return headers["id"] in [letter.headers.get("id") for letter in found]

        wait_until(arrived, PATIENCE_S, "the bad message is among the dead letters")
    return found


def told(events: list[dict[str, Any]]) -> set[str]:
    """The tasks of whose end there was an event."""
    ends = {"task-succeeded", "task-failed", "task-revoked"}
    return {event["uuid"] for event in list(events) if event["type"] in ends}


def pages_of(tasks: dict[str, str], processes: dict[str, Any]) -> list[str]:
    ways = ("/task/{}", "/api/task/info/{}", "/api/task/result/{}", "/api/task/result/{}?timeout=1")
    workers = [f"/worker/{processes[lane].name}@localhost" for lane in POOLS]
    return workers + [way.format(task_id) for task_id in tasks for way in ways]


def test_no_log_holds_a_secret(traces: Traces) -> None:
    assert_hidden(traces.logs)
    for lane, pool in POOLS.items():
        assert [task for task in traces.tasks if task in traces.logs[lane]], f"{pool} logged what it did"
    assert "accepting AMQP connection" in traces.logs["rabbitmq"]


def test_no_inspection_of_running_tasks_shows_a_secret(traces: Traces) -> None:
    assert_hidden(traces.inspected)
    shown = {
        what: len([task for task in traces.running if task in text])
        for what, text in traces.inspected.items()
    }
    slots = len(POOLS) * SLOTS
    assert shown["active"] == slots
    assert shown["reserved"] == slots, "those that wait behind them"
    assert shown["query_task"] == 2 * slots


def test_no_event_holds_a_secret(traces: Traces) -> None:
    assert_hidden({event["type"]: json.dumps(event, default=repr) for event in traces.events})
    kinds = {event["type"] for event in traces.events}
    assert {"task-received", "task-started", "task-succeeded", "task-failed", "task-revoked"} <= kinds


def test_no_page_of_flower_shows_a_secret(traces: Traces) -> None:
    assert_hidden(traces.pages)
    assert [path for path, text in traces.pages.items() if not text] == []
    assert traces.tasks.keys() <= json.loads(traces.pages["/api/tasks"]).keys()


def test_no_header_of_a_dead_letter_holds_a_secret(traces: Traces) -> None:
    assert [letter.headers["x-textgen-reason"] for letter in traces.dead]
    assert_hidden({letter.headers["id"]: f"{letter.headers} {letter.properties}" for letter in traces.dead})


def test_what_could_have_been_shown_was_there(traces: Traces, env: Environment) -> None:
    """All of the above would be worth nothing if no task had held a secret."""
    with application(env):
        from textgen import client

        records = [json.dumps(client.get(task_id).as_dict()) for task_id in traces.tasks]

    for place in ("prompt", "system", "metadata", "stop", "result"):
        assert any(CANARIES[place] in record for record in records)
