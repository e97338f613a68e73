"""Webhooks as they are deployed: web app, broker, store, workers, and receivers that misbehave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import redis
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.environment import Environment
from tests.processes import wait_until
from tests.programs import WebProcess, WorkerProcess
from tests.receiver import Received, Receiver

#: A schedule of seconds instead of hours, and a short patience.
QUICK = {
    "TEXTGEN_WEBHOOK_ALLOW": "127.0.0.0/8",
    "TEXTGEN_WEBHOOK_RETRIES_S": "0.2,0.3,0.4,0.5",
    "TEXTGEN_WEBHOOK_TIMEOUT_S": "1.5",
}


@dataclass(frozen=True)
class Deployment:
    """A stack with a worker of two slots, and the secret of its only owner."""

    env: Environment
    http: httpx.Client
    worker: WorkerProcess
    web: WebProcess
    secret: str

    def submit(self, receiver: Receiver | str, **fields: Any) -> str:
        """Submit a task with a webhook; returns its id."""
        url = receiver if isinstance(receiver, str) else receiver.url
        webhook = {"url": url, **fields.pop("webhook", {})}
        answer = self.http.post("/v1/tasks", json={"prompt": "Hello", "webhook": webhook, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def record(self, task_id: str) -> dict[str, Any]:
        """Its record, once it has ended."""
        return dict(self.http.get(f"/v1/tasks/{task_id}?wait_s=30").json())

    def log(self, task_id: str, number: int = 1) -> list[dict[str, Any]]:
        """The log of its deliveries, once there are so many tries."""

        def tries() -> list[dict[str, Any]]:
            return list(self.http.get(f"/v1/tasks/{task_id}/webhook-deliveries").json()["data"])

        wait_until(lambda: len(tries()) >= number, 20, f"{number} tries are in the log")
        return tries()


@pytest.fixture(scope="module", params=["rabbitmq", "valkey"])
def deployed(
    request: pytest.FixtureRequest,
    module_stack_env: Callable[..., Environment],
    module_start_web: Callable[..., WebProcess],
    module_start_worker: Callable[..., WorkerProcess],
) -> Iterator[Deployment]:
    env = module_stack_env(request.param, **QUICK)
    web, worker = module_start_web(env), module_start_worker(env, "threads", 2).wait_ready()
    with httpx.Client(base_url=web.url, timeout=70) as http:
        secret = http.post("/v1/webhooks/secret").json()["secret"]
        yield Deployment(env, http, worker, web, secret)


def verified(secret: str, received: Received) -> dict[str, Any]:
    """The body, as a receiver has it after the library has verified it."""
    return dict(Webhook(secret).verify(received.body, received.headers))


def outcomes(log: list[dict[str, Any]]) -> list[tuple[str, int | None, str]]:
    return [(entry["outcome"], entry["status_code"], entry["reason"]) for entry in log]


def test_the_end_of_a_task_is_told_signed_and_with_its_record(deployed: Deployment) -> None:
    with Receiver() as receiver:
        task_id = deployed.submit(receiver, metadata={"order": [17, None, "é"]})
        (received,) = receiver.wait_for(1)
        body = verified(deployed.secret, received)

        assert body["type"] == "task.completed"
        assert body["data"] == deployed.record(task_id)
        assert body["timestamp"] == body["data"]["finished_at"]
        assert "truncated" not in body
        assert received.path == "/hook?token=canary-q"
        assert received.headers["content-type"] == "application/json"
        assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
        assert outcomes(deployed.log(task_id)) == [("delivered", 200, "")]
        assert body["data"]["webhook"]["events"] == ["task.completed", "task.failed", "task.cancelled"]


def test_each_event_asked_for_is_told_once_with_an_id_of_its_own(deployed: Deployment) -> None:
    with Receiver() as receiver:
        events = ["task.processing", "task.failed", "task.cancelled"]
        plan = {"mock": {"failure": "transient", "times": 1}}
        failing = deployed.submit(receiver, webhook={"events": events}, metadata=plan)
        receiver.wait_for(2)
        running = deployed.submit(receiver, webhook={"events": events}, metadata={"mock": {"delay_s": 20}})
        receiver.wait_for(3)
        deployed.http.post(f"/v1/tasks/{running}/cancel").raise_for_status()
        told = [verified(deployed.secret, received) for received in receiver.wait_for(4)]

        # what is due at the same time is sent at the same time
        told.sort(key=lambda body: str(body["timestamp"]))
        assert [(body["type"], body["data"]["task_id"], body["data"]["attempt"]) for body in told] == [
            ("task.processing", failing, 1),
            ("task.processing", failing, 2),
            ("task.processing", running, 1),
            ("task.cancelled", running, 1),
        ]
        assert len({received.headers["webhook-id"] for received in receiver.received}) == 4
        assert deployed.record(failing)["status"] == "COMPLETED"


def test_a_receiver_that_fails_hangs_redirects_and_recovers_gets_the_same_again(
    deployed: Deployment,
) -> None:
    with Receiver() as elsewhere:
        plan = [500, "hang", (302, {"Location": elsewhere.url}), "cut", 204]
        with Receiver(*plan) as receiver:
            task_id = deployed.submit(receiver)
            received = receiver.wait_for(5)
            log = deployed.log(task_id, 5)

    assert len({one.body for one in received}) == len({one.headers["webhook-id"] for one in received}) == 1
    assert {verified(deployed.secret, one)["data"]["task_id"] for one in received} == {task_id}
    assert outcomes(log) == [
        ("failed", 500, "status"),
        ("failed", None, "timeout"),
        ("failed", 302, "redirect"),
        ("failed", None, "broken answer"),
        ("delivered", 204, ""),
    ]
    assert [entry["number"] for entry in log] == [1, 2, 3, 4, 5]
    assert all(entry["next_at"] for entry in log[:4])
    assert elsewhere.received == []


def test_a_receiver_that_never_takes_it_is_given_up_after_the_schedule(deployed: Deployment) -> None:
    with Receiver(*[503] * 10) as receiver:
        task_id = deployed.submit(receiver)
        log = deployed.log(task_id, 5)
        store = redis.Redis.from_url(deployed.env["REDIS_URL"])

        assert [entry["outcome"] for entry in log] == ["failed"] * 4 + ["given_up"]
        wait_until(lambda: store.zscore("webhooks:due", log[0]["id"]) is None, 5, "it is not due again")
        assert store.exists(f"webhooks:{{task:{task_id}}}") == 0
        assert store.pttl(f"deliveries:{{task:{task_id}}}") > 0
        assert len(receiver.received) == 5


def test_a_wait_that_the_receiver_asks_for_is_kept(deployed: Deployment) -> None:
    with Receiver((429, {"Retry-After": "2"})) as receiver:
        deployed.submit(receiver)
        first, second = receiver.wait_for(2)
        assert second.at - first.at >= 1.9


def test_410_ends_all_that_goes_to_the_address_until_a_test_is_taken(deployed: Deployment) -> None:
    with Receiver(410) as receiver:
        first = deployed.submit(receiver)
        assert outcomes(deployed.log(first)) == [("gone", 410, "status")]
        second = deployed.submit(receiver)
        assert outcomes(deployed.log(second)) == [("disabled", None, "address is gone")]
        assert len(receiver.received) == 1

        tested = deployed.http.post("/v1/webhooks/test", json={"url": receiver.url})
        assert tested.json() | {"duration_ms": 0} == {
            "delivered": True,
            "status_code": 200,
            "reason": "",
            "duration_ms": 0,
        }
        assert verified(deployed.secret, receiver.received[1])["type"] == "webhook.test"
        assert outcomes(deployed.log(deployed.submit(receiver))) == [("delivered", 200, "")]


def test_receivers_that_hang_delay_neither_generation_nor_others(deployed: Deployment) -> None:
    with Receiver(*["hang"] * 100) as dead, Receiver() as alive:
        began = time.monotonic()
        tasks = [deployed.submit(dead) for _ in range(30)]
        told = deployed.submit(alive)
        assert {deployed.record(task_id)["status"] for task_id in [*tasks, told]} == {"COMPLETED"}
        completed_s = time.monotonic() - began
        alive.wait_for(1, 5)

        # what it would take if each receiver that hangs held one of the two slots until its time-out
        assert completed_s < 30 * 1.5 / 2
        assert len(dead.received) >= 4


def test_a_rotated_secret_and_the_one_before_both_verify_for_a_while(deployed: Deployment) -> None:
    old = deployed.http.post("/v1/webhooks/secret/rotate", json={"overlap_s": 600}).json()["secret"]
    new = deployed.http.post("/v1/webhooks/secret/rotate", json={"overlap_s": 600}).json()["secret"]
    with Receiver() as receiver:
        deployed.submit(receiver)
        (received,) = receiver.wait_for(1)
        assert verified(old, received) == verified(new, received)
        with pytest.raises(WebhookVerificationError):
            verified(deployed.secret, received)

        newest = deployed.http.post("/v1/webhooks/secret/rotate", json={"overlap_s": 0}).json()["secret"]
        deployed.submit(receiver)
        received = receiver.wait_for(2)[1]
        verified(newest, received)
        with pytest.raises(WebhookVerificationError):
            verified(new, received)
    object.__setattr__(deployed, "secret", newest)


def test_the_secret_is_shown_once(deployed: Deployment) -> None:
    again = deployed.http.post("/v1/webhooks/secret")
    assert (again.status_code, again.json()["type"]) == (409, "urn:textgen:problem:secret-shown")


def test_a_long_text_is_cut_and_says_so(deployed: Deployment) -> None:
    with Receiver() as receiver:
        task_id = deployed.submit(receiver, prompt="long " * 18_000)
        (received,) = receiver.wait_for(1)
        body = verified(deployed.secret, received)

        assert body["truncated"] == ["prompt"]
        assert body["data"] == deployed.record(task_id) | {"prompt": None}
        assert len(received.body) < 20_000


def test_neither_address_nor_secret_nor_body_stands_in_a_log(deployed: Deployment) -> None:
    with Receiver(500) as receiver:
        task_id = deployed.submit(receiver, prompt="canary-p", metadata={"a": "canary-m"})
        receiver.wait_for(2)
        log = deployed.log(task_id, 2)
    deployed.http.post("/v1/webhooks/test", json={"url": receiver.url, "canary": "canary-f"})

    for text in (deployed.worker.log(), deployed.web.log(), json.dumps(log)):
        for canary in ("canary-", "/hook", "whsec_", deployed.secret.removeprefix("whsec_")):
            assert canary not in text
    assert f"msg_{task_id}_completed_1" in deployed.worker.log()


def test_an_unknown_task_has_no_log(deployed: Deployment) -> None:
    assert deployed.http.get(f"/v1/tasks/{'0' * 36}/webhook-deliveries").status_code == 404


def test_a_delivery_that_its_worker_died_in_is_made_by_another(
    stack_env: Callable[..., Environment],
    start_web: Callable[..., WebProcess],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    env = stack_env("rabbitmq", **QUICK)
    web, worker = start_web(env), start_worker(env).wait_ready()
    with Receiver("hang") as receiver:
        httpx.post(f"{web.url}/v1/tasks", json={"prompt": "x", "webhook": {"url": receiver.url}})
        receiver.wait_for(1)
        worker.kill()
        start_worker(env).wait_ready()
        first, second = receiver.wait_for(2, 40)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


@pytest.mark.parametrize("pool", ["prefork", "gevent", "solo"])
def test_webhooks_are_sent_beside_every_pool(
    pool: str,
    stack_env: Callable[..., Environment],
    start_web: Callable[..., WebProcess],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    env = stack_env("rabbitmq", **QUICK)
    web = start_web(env)
    start_worker(env, pool, 1).wait_ready()
    secret = httpx.post(f"{web.url}/v1/webhooks/secret").json()["secret"]
    with Receiver("hang") as receiver:
        for _ in range(2):
            httpx.post(f"{web.url}/v1/tasks", json={"prompt": "x", "webhook": {"url": receiver.url}})
        told = {verified(secret, one)["data"]["task_id"] for one in receiver.wait_for(3)}
    assert len(told) == 2


def test_a_worker_without_senders_leaves_deliveries_to_others(
    stack_env: Callable[..., Environment],
    start_web: Callable[..., WebProcess],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    env = stack_env("rabbitmq", **QUICK)
    web = start_web(env)
    silent = start_worker(env | {"TEXTGEN_WEBHOOK_SENDERS": "0"}).wait_ready()
    sending = start_worker(env).wait_ready()
    with Receiver() as receiver:
        for _ in range(6):
            httpx.post(f"{web.url}/v1/tasks", json={"prompt": "x", "webhook": {"url": receiver.url}})
        receiver.wait_for(6)
        wait_until(lambda: sending.log().count("webhook delivered") == 6, 5, "six are logged")
    assert "textgen.webhooks.tasks.deliver[" not in silent.log()


def test_a_worker_stops_while_a_receiver_hangs(
    stack_env: Callable[..., Environment],
    start_web: Callable[..., WebProcess],
    start_worker: Callable[..., WorkerProcess],
) -> None:
    env = stack_env("rabbitmq", **QUICK)
    web, worker = start_web(env), start_worker(env).wait_ready()
    with Receiver(*["hang"] * 20) as receiver:
        for _ in range(12):
            httpx.post(f"{web.url}/v1/tasks", json={"prompt": "x", "webhook": {"url": receiver.url}})
        receiver.wait_for(4)
        assert worker.stop(10) == 0


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/", "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/"),
        *("https://0x7f000001/", "https://2130706433/", "https://user:pw@example.com/"),
        *("https://example.com:22/", "https://localhost/", "not a url", "", 5, None),
    ],
)
def test_an_address_inside_is_422_and_leaves_nothing(guarded: tuple[Environment, str], url: Any) -> None:
    env, base = guarded
    for path, body, field in (
        ("/v1/tasks", {"prompt": "x", "webhook": {"url": url}}, "webhook.url"),
        ("/v1/webhooks/test", {"url": url}, "url"),
    ):
        headers = {"Idempotency-Key": "k"} if path == "/v1/tasks" else {}
        answer = httpx.post(base + path, json=body, headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert redis.Redis.from_url(env["REDIS_URL"]).keys("*") == []


@pytest.fixture(scope="module")
def guarded(
    module_stack_env: Callable[..., Environment], module_start_web: Callable[..., WebProcess]
) -> tuple[Environment, str]:
    """A web app that allows nothing inside."""
    env = module_stack_env("rabbitmq")
    return env, module_start_web(env).url
