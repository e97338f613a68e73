"""The users of docker-compose.yml, with the very permissions it ships: enough for all that textgen does,
and nothing to spare.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import amqp
import httpx
import pytest
import redis
from standardwebhooks.webhooks import Webhook

from tests.application import application
from tests.environment import Environment, new_folder, of_process, variables
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from tests.receiver import Receiver
from tests.services import RABBITMQ_BIN, PrivateRabbitMQ, PrivateRedis

ROOT = Path(__file__).parents[2]
QUEUE = "text_generation_tasks"
#: Seconds that anything may take here at the most.
PATIENCE_S = 60
EX_CONFIG = 78
ROLES = ("ADMIN", "WEB", "FLOWER", "MONITOR")
#: Each user's password is its name, with a character that shells, JSON and URLs take for something else.
PASSWORDS = {
    f"{kind}_{role}_PASSWORD": f'{role.lower()}"' for kind in ("RABBITMQ", "REDIS") for role in ROLES
}
PASSWORDS |= {"RABBITMQ_PASSWORD": 'worker"', "REDIS_PASSWORD": 'worker"'}
#: Engines with lanes of their own; the mock is none of them.
LANES = {"TEXTGEN_ENGINE_LANES": "local, openai"}


class Servers:
    """RabbitMQ and Redis, started as docker-compose.yml starts them."""

    def __init__(self) -> None:
        folder, path = new_folder("guarded-rabbitmq"), f"{RABBITMQ_BIN}:{os.environ['PATH']}:/usr/sbin"
        config = {"load_definitions": folder / "definitions.json"}
        self.broker = PrivateRabbitMQ(folder, config=config)
        self.broker.process.command = ["sh", str(ROOT / "deploy" / "rabbitmq_users.sh"), str(folder)]
        self.broker.process.env |= {**PASSWORDS, **LANES, "PATH": path}
        folder = new_folder("guarded-redis")
        self.store = PrivateRedis(folder)
        options = ["--port", str(self.store.port), "--dir", str(folder)]
        self.store.process.command = ["sh", str(ROOT / "deploy" / "redis_users.sh"), str(folder), *options]
        self.store.process.env |= {**PASSWORDS, "PATH": path}

    def env(self, user: str) -> Environment:
        """The environment of the part that is `user`."""
        login = f"{user}:{user}%22@127.0.0.1"
        return variables(
            f"amqp://{login}:{self.broker.port}//",
            f"redis://{login}:{self.store.port}/0",
            new_folder(f"guarded-{user}"),
        ) | {"TEXTGEN_WEBHOOK_ALLOW": "127.0.0.0/8", **LANES}

    def redis(self, user: str) -> redis.Redis:
        return redis.Redis.from_url(self.env(user)["REDIS_URL"], decode_responses=True)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    made = Servers()
    with made.broker, made.store:
        yield made


@pytest.fixture(scope="module")
def web(servers: Servers, module_start_web: Callable[..., WebProcess]) -> WebProcess:
    """The web app: it is there first, and so declares what it publishes to."""
    return module_start_web(servers.env("web"))


@pytest.fixture(scope="module")
def worker(
    servers: Servers, web: WebProcess, module_start_worker: Callable[..., WorkerProcess]
) -> WorkerProcess:
    """A worker, started when a task had been submitted already."""
    early = submit(web)
    started = module_start_worker(servers.env("worker") | {"TEXTGEN_LEASE_S": "2"}).wait_ready()
    assert ended(web, early)["status"] == "COMPLETED"
    return started


def submit(
    web: WebProcess, key: str = "", webhook: object = None, engine: str = "mock", **behaviour: object
) -> str:
    body = {
        "webhook": webhook,
        "prompt": "Hello",
        "engine": engine,
        "max_tokens": 1000,
        "metadata": {"mock": behaviour},
    }
    headers = {"Idempotency-Key": key} if key else {}
    answer = httpx.post(f"{web.url}/v1/tasks", json=body, headers=headers, timeout=20)
    assert answer.status_code == 202, answer.text + web.log()[-3000:]
    return str(answer.json()["task_id"])


def ended(web: WebProcess, task_id: str) -> dict[str, object]:
    url = f"{web.url}/v1/tasks/{task_id}"
    record: dict[str, object] = httpx.get(url, params={"wait_s": PATIENCE_S}, timeout=PATIENCE_S + 5).json()
    return record


def status(web: WebProcess, task_id: str) -> str:
    return str(httpx.get(f"{web.url}/v1/tasks/{task_id}", timeout=20).json()["status"])


def textgen(env: Environment, *args: str) -> str:
    command = [str(Path(sys.executable).parent / "textgen"), *args]
    done = subprocess.run(
        command, env=of_process(env), cwd=new_folder("cli"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Enough


def test_a_task_is_submitted_and_read_over_http(web: WebProcess, worker: WorkerProcess) -> None:
    task_id = submit(web, "one-key", tokens=3)
    assert submit(web, "one-key", tokens=3) == task_id
    assert ended(web, task_id)["attempt"] == 1
    ready = f"{web.url}/readyz"
    wait_until(lambda: httpx.get(ready, timeout=20).is_success, PATIENCE_S, "the web app sees the worker")


def test_a_task_goes_through_its_engines_own_lane(web: WebProcess, worker: WorkerProcess) -> None:
    record = ended(web, submit(web, engine="openai"))
    assert (record["status"], record["attempt"]) == ("FAILED", 1), "it ran, and there is no key"


def test_a_failed_attempt_is_tried_again_after_a_wait(web: WebProcess, worker: WorkerProcess) -> None:
    record = ended(web, submit(web, failure="transient", times=2))
    assert (record["status"], record["attempt"], record["failures"]) == ("COMPLETED", 3, 2)


def test_texts_are_cached_shared_and_cleared(web: WebProcess, worker: WorkerProcess) -> None:
    body = {"prompt": "Hello", "engine": "mock", "seed": 1, "metadata": {"mock": {"delay_s": 0.05}}}

    def ask() -> dict[str, object]:
        answer = httpx.post(f"{web.url}/v1/tasks", json=body, headers={"Prefer": "wait=60"}, timeout=70)
        return dict(answer.json())

    with ThreadPoolExecutor(3) as threads:
        records = list(threads.map(lambda _: ask(), range(3)))
    assert sorted(record["cached"] for record in records) == [False, True, True]
    assert ask()["cached"] is True
    assert httpx.delete(f"{web.url}/v1/cache", timeout=20).json() == {"cleared": 1}
    assert ask()["cached"] is False


def test_a_task_is_cancelled_by_each_way(servers: Servers, web: WebProcess, worker: WorkerProcess) -> None:
    env = servers.env("worker")
    ways: list[Callable[[str], object]] = [
        lambda task_id: httpx.post(f"{web.url}/v1/tasks/{task_id}/cancel", timeout=20).raise_for_status(),
        lambda task_id: textgen(env, "cancel", task_id),
        lambda task_id: _revoke(servers.env("flower"), task_id),
    ]
    for cancel in ways:
        task_id = submit(web, delay_s=0.05, tokens=900)
        wait_until(lambda: status(web, task_id) == "PROCESSING", PATIENCE_S, "it runs")  # noqa: B023
        cancel(task_id)
        assert ended(web, task_id)["status"] == "CANCELLED"


def _revoke(env: Environment, task_id: str) -> None:
    """What Flower's Revoke button calls."""
    with application(env) as app:
        app.control.revoke(task_id, terminate=True)


def test_the_cli_submits_reads_and_looks_over(
    servers: Servers, web: WebProcess, worker: WorkerProcess
) -> None:
    env = servers.env("worker")
    assert textgen(env, "single", "Hello").strip()
    assert "COMPLETED" in textgen(env, "list")
    assert "worker" in textgen(env, "monitor", "--once")


def test_workers_share_what_they_know_of_providers(servers: Servers, worker: WorkerProcess) -> None:
    with application(servers.env("worker")):
        from textgen import client
        from textgen.settings import get_settings
        from textgen.store import circuits, open_store, permits

        store, asked = open_store(), permits.Candidate("openai", True, 1, 0, 60_000)
        lasting = permits.Terms(1, 1, 1)
        for _ in range(5):
            assert circuits.report("other", get_settings(), is_failure=True)
        permits.answered(store, permits.ask(store, "p", "t", 1, lasting, [asked]), is_well=True)
        assert permits.ask(store, "p", "t", 1, lasting, [asked]).reasons == ("at its limit",)
        assert permits.look(store, "other", 30).circuit == "open"
        assert [one.name for one in client.engine_states()] == ["anthropic", "openai"]


def test_dead_letters_are_shown_replayed_and_purged(
    servers: Servers, web: WebProcess, worker: WorkerProcess
) -> None:
    with application(servers.env("worker")) as app, app.connection_for_write() as connection:
        producer = connection.Producer()
        producer.publish(b"junk", exchange=QUEUE, routing_key=QUEUE, content_type="text/plain")
    letters = f"{web.url}/v1/dead-letters"
    wait_until(
        lambda: "no task header" in httpx.get(letters, timeout=20).text, PATIENCE_S, "junk is a dead letter"
    )

    failed = submit(web, failure="transient", times=5)
    wait_until(lambda: httpx.get(f"{letters}/{failed}").status_code == 200, PATIENCE_S, "a task is one, too")
    replayed = httpx.post(f"{letters}/{failed}/replay", timeout=20)
    assert replayed.is_success, replayed.text
    assert httpx.delete(letters, timeout=20).is_success
    assert "dead" not in str(servers.redis("admin").keys("dead:*"))


def test_a_webhook_is_sent_and_tested_and_its_secret_shown(
    servers: Servers, web: WebProcess, worker: WorkerProcess
) -> None:
    with Receiver() as receiver:
        secret = httpx.post(f"{web.url}/v1/webhooks/secret", timeout=20).json()["secret"]
        httpx.post(f"{web.url}/v1/webhooks/secret/rotate", json={}, timeout=20).raise_for_status()
        tested = httpx.post(f"{web.url}/v1/webhooks/test", json={"url": receiver.url}, timeout=20)
        assert tested.json()["delivered"]
        task_id = submit(web, webhook={"url": receiver.url}, delay_s=0.05, tokens=900)
        wait_until(lambda: status(web, task_id) == "PROCESSING", PATIENCE_S, "it runs")
        _revoke(servers.env("flower"), task_id)
        received = receiver.wait_for(2, PATIENCE_S)[1]
        assert Webhook(secret).verify(received.body, received.headers)["type"] == "task.cancelled"
        log = f"{web.url}/v1/tasks/{task_id}/webhook-deliveries"
        wait_until(lambda: httpx.get(log, timeout=20).json()["data"], PATIENCE_S, "it is in the log")


def test_the_janitor_takes_over_from_a_killed_worker(
    servers: Servers, web: WebProcess, worker: WorkerProcess
) -> None:
    task_id = submit(web, delay_s=0.05, tokens=60)
    wait_until(lambda: status(web, task_id) == "PROCESSING", PATIENCE_S, "it runs")
    worker.kill()
    worker.start().wait_ready()
    record = ended(web, task_id)
    assert (record["status"], record["attempt"]) == ("COMPLETED", 2)


def test_nothing_was_forbidden_in_all_that(servers: Servers, web: WebProcess, worker: WorkerProcess) -> None:
    assert ended(web, submit(web))["status"] == "COMPLETED"
    assert servers.redis("admin").execute_command("ACL", "LOG") == []
    assert "refused" not in servers.broker.process.log()


def test_the_monitoring_script_runs_as_the_monitor(
    servers: Servers, web: WebProcess, worker: WorkerProcess
) -> None:
    task_id = submit(web)
    ended(web, task_id)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (script,) = (block for block in blocks if 'keys("task:*")' in block)
    login = f'port={servers.store.port}, username="monitor", password="monitor\\""'
    script = script.replace("port=6379", login)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert f"{task_id[:8]}... COMPLETED" in done.stdout, done.stderr
    assert servers.redis("monitor").ttl(f"task:{task_id}") > 0


# Nothing to spare

DANGEROUS = ["FLUSHALL", "FLUSHDB", "CONFIG GET *", "SHUTDOWN NOSAVE", "ACL LIST", "CLIENT LIST"]
DANGEROUS += ["MONITOR", "SAVE", "SCRIPT FLUSH", "REPLICAOF NO ONE", "MODULE LIST", "SLOWLOG GET"]
FORBIDDEN = {
    "web": [
        *DANGEROUS,
        "KEYS *",
        "SCAN 0",
        "GET other",
        "SET other 1",
        "ZADD workers 1 x",
        "GET janitor:leader",
    ],
    "worker": [
        *DANGEROUS,
        "KEYS *",
        "SCAN 0",
        "GET other",
        "SET other 1",
        "PUBLISH other x",
        "SUBSCRIBE other",
    ],
    "flower": [
        *DANGEROUS,
        "KEYS *",
        "SCAN 0",
        "GET other",
        "GET dead:1",
        "GET idem:1",
        "GET webhooks:secrets:default",
        "ZADD tasks:created 1 x",
    ],
    "monitor": [
        *DANGEROUS,
        "SET task:1 x",
        "DEL task:1",
        "GET idem:1",
        "GET webhooks:secrets:default",
        "HGETALL webhooks:{task:1}",
        "HGETALL state:{task:1}",
        "GET dead:1",
        "EVAL x 0",
        "EXPIRE task:1 1",
    ],
}


@pytest.mark.parametrize(
    ("user", "command"), [(user, one) for user, all_ in FORBIDDEN.items() for one in all_]
)
def test_redis_refuses_what_a_part_has_no_business_with(servers: Servers, user: str, command: str) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        servers.redis(user).execute_command(*command.split())


@pytest.mark.parametrize("user", FORBIDDEN)
def test_nobody_may_debug(servers: Servers, user: str) -> None:
    # without asking for it: servers that do not allow it at all say so first
    answer = servers.redis("admin").execute_command("ACL", "DRYRUN", user, "DEBUG", "SLEEP", "0")
    assert "permissions" in answer


@pytest.mark.parametrize("user", ["web", "worker", "flower"])
def test_a_script_of_a_part_can_do_no_more_than_the_part(servers: Servers, user: str) -> None:
    for body in ("return redis.call('FLUSHALL')", "return redis.call('GET', 'other')"):
        with pytest.raises(redis.ResponseError, match=r"ACL failure|can't (run|access)"):
            servers.redis(user).eval(body, 0)


# Told when it is missing


def test_a_submit_says_what_redis_forbids_and_to_whom(servers: Servers) -> None:
    env = servers.env("monitor")
    with application(env | {"CELERY_BROKER_URL": servers.env("worker")["CELERY_BROKER_URL"]}):
        from textgen import client
        from textgen.errors import StoreUnavailable
        from textgen.requests import parse_request

        with pytest.raises(StoreUnavailable, match=r"'monitor' \(.*'info'.*deploy/redis_users.sh"):
            client.submit(parse_request({"prompt": "Hello"}))


def test_a_submit_says_what_a_script_of_ours_may_not_do(servers: Servers) -> None:
    submitter = servers.env("web")
    admin = servers.redis("admin")
    admin.execute_command("ACL", "SETUSER", "web", "-hset")
    try:
        with application(submitter):
            from textgen import client
            from textgen.errors import StoreUnavailable
            from textgen.requests import parse_request

            with pytest.raises(StoreUnavailable, match=r"'web' \(.*deploy/redis_users.sh"):
                client.submit(parse_request({"prompt": "Hello"}))
    finally:
        admin.execute_command("ACL", "SETUSER", "web", "+hset")


def test_a_submit_says_what_rabbitmq_forbids_and_to_whom(servers: Servers) -> None:
    env = servers.env("flower")
    with application(env | {"REDIS_URL": servers.env("worker")["REDIS_URL"]}):
        from textgen import client
        from textgen.errors import BrokerUnavailable
        from textgen.requests import parse_request

        with pytest.raises(BrokerUnavailable, match=r"'text_gen.*user 'flower'.*deploy/rabbitmq_users.sh"):
            client.submit(parse_request({"prompt": "Hello"}))


def test_a_worker_without_permissions_in_redis_says_so_and_ends(
    servers: Servers, start_worker: Callable[..., WorkerProcess]
) -> None:
    env = servers.env("worker") | {"REDIS_URL": servers.env("monitor")["REDIS_URL"]}
    worker = start_worker(env)
    assert worker.wait() == EX_CONFIG, worker.log()
    assert re.search(r"'monitor' \(.*'info'.*deploy/redis_users.sh", worker.log())


def test_a_worker_without_permissions_in_rabbitmq_says_so_and_ends(
    servers: Servers, start_worker: Callable[..., WorkerProcess]
) -> None:
    celery = "(celeryev|.*pidbox).*"
    servers.broker.ctl("add_user", "newcomer", "newcomer")
    servers.broker.ctl("set_permissions", "newcomer", celery, celery, celery)
    url = f"amqp://newcomer:newcomer@127.0.0.1:{servers.broker.port}//"
    worker = start_worker(servers.env("worker") | {"CELERY_BROKER_URL": url})
    assert worker.wait() == EX_CONFIG, worker.log()
    assert re.search(r"'text_generation.*user 'newcomer'.*deploy/rabbitmq_users.sh", worker.log())


def test_nobody_comes_in_without_a_name(servers: Servers) -> None:
    for login in ("", ':admin"@'.replace('"', "%22"), "default:x@"):
        with pytest.raises(redis.RedisError, match=r"(?i)authenticat|password"):
            redis.Redis.from_url(f"redis://{login}127.0.0.1:{servers.store.port}/0").ping()
    with pytest.raises((amqp.AccessRefused, ConnectionError)):
        amqp.Connection(f"127.0.0.1:{servers.broker.port}", userid="guest", password="guest").connect()


def _call(channel: amqp.Channel, method: str, arguments: dict[str, object]) -> None:
    getattr(channel, method)(**arguments)
    channel.connection.drain_events(timeout=2)  # what nobody waits for is refused by the next answer


#: What a part may not do to RabbitMQ: a method of a channel, and its arguments.
REFUSED_BY_BROKER = {
    "web": [
        ("queue_declare", {"queue": "other"}),
        ("queue_delete", {"queue": f"{QUEUE}.dead"}),
        ("basic_consume", {"queue": f"{QUEUE}.dlx"}),
        ("basic_publish", {"msg": amqp.Message("x"), "routing_key": f"{QUEUE}.dead"}),
        ("basic_publish", {"msg": amqp.Message("x"), "exchange": "celery.pidbox"}),
    ],
    "worker": [
        ("queue_declare", {"queue": "other"}),
        ("basic_publish", {"msg": amqp.Message("x"), "exchange": "amq.topic"}),
    ],
    "flower": [
        ("queue_declare", {"queue": QUEUE}),
        ("queue_purge", {"queue": QUEUE}),
        ("queue_delete", {"queue": QUEUE}),
        ("basic_get", {"queue": QUEUE}),
        ("basic_publish", {"msg": amqp.Message("x"), "exchange": QUEUE, "routing_key": QUEUE}),
    ],
}


@pytest.mark.parametrize(
    ("user", "call"), [(user, one) for user, all_ in REFUSED_BY_BROKER.items() for one in all_]
)
def test_rabbitmq_refuses_what_a_part_has_no_business_with(
    servers: Servers, worker: WorkerProcess, user: str, call: tuple[str, dict[str, object]]
) -> None:
    method, arguments = call
    with amqp.Connection(f"127.0.0.1:{servers.broker.port}", userid=user, password=f'{user}"') as connection:
        channel = connection.channel()
        channel.confirm_select()
        with pytest.raises(amqp.AccessRefused):
            _call(channel, method, arguments)
