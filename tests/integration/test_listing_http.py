"""Lists, deletes and the outlook of waiting tasks, over HTTP and in Python, on both kinds of stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import redis

from tests.environment import Environment
from tests.processes import wait_until
from textgen.client import TextGenerationClient
from textgen.errors import InvalidRequest, TaskUnfinished, UnknownTask
from textgen.lifecycle import new_task_id

#: Metadata that makes the mock engine take half a second.
HALF_A_SECOND = {"mock": {"delay_s": 0.1, "tokens": 5}}


@pytest.fixture(scope="module", params=["rabbitmq", "valkey"])
def env(request: pytest.FixtureRequest, module_stack_env: Callable[..., Environment]) -> Environment:
    return module_stack_env(request.param, TEXTGEN_INDEXED_METADATA="user")


@pytest.fixture(scope="module")
def url(env: Environment, module_start_web: Callable[..., Any]) -> str:
    return str(module_start_web(env).url)


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as made:
        yield made


@pytest.fixture
def worker(env: Environment, start_worker: Callable[..., Any]) -> Any:
    """A worker that runs one task at a time."""
    return start_worker(env, "threads", 1).wait_ready()


def submit(http: httpx.Client, **fields: Any) -> str:
    answer = http.post("/v1/tasks", json={"prompt": "Hello", **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["task_id"])


def read(http: httpx.Client, task_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = http.get(f"/v1/tasks/{task_id}").json()
    return shown


def test_waiting_tasks_know_their_place_but_not_their_time_while_nobody_works(http: httpx.Client) -> None:
    before = [submit(http, metadata={"user": "queue"}) for _ in range(4)]
    bulk = submit(http, lane="bulk")
    places = [read(http, one) for one in before]
    assert [one["queue_position"] for one in places] == [1, 2, 3, 4]
    assert [one["eta_s"] for one in places] == [None] * 4
    assert read(http, bulk)["queue_position"] == 1  # its lane is another one

    in_list = http.get("/v1/tasks?metadata.user=queue").json()["data"]
    assert [one["queue_position"] for one in in_list] == [4, 3, 2, 1]
    http.post(f"/v1/tasks/{before[0]}/cancel")
    assert [read(http, one)["queue_position"] for one in before[1:]] == [1, 2, 3]
    assert "queue_position" not in read(http, before[0])
    for one in [*before[1:], bulk]:
        http.post(f"/v1/tasks/{one}/cancel")


def test_an_estimate_comes_once_the_queue_moves_and_is_about_right(http: httpx.Client, worker: Any) -> None:
    tasks = [submit(http, metadata=HALF_A_SECOND) for _ in range(14)]
    wait_until(lambda: read(http, tasks[3])["status"] == "COMPLETED", 30, "the queue moves")
    last = read(http, tasks[-1])
    assert last["status"] == "PENDING"
    assert 5 <= last["queue_position"] <= 10
    assert 0.25 * last["queue_position"] <= last["eta_s"] <= 2 * last["queue_position"]
    wait_until(lambda: read(http, tasks[-1])["status"] == "COMPLETED", 60, "the last one ends")
    assert read(http, tasks[-1]).keys().isdisjoint({"queue_position", "eta_s"})


def test_a_task_that_waits_for_its_next_attempt_knows_when_at_the_earliest(
    http: httpx.Client, worker: Any
) -> None:
    fails = {"mock": {"failure": "transient", "retry_after_s": 20}}
    task_id = submit(http, metadata=fails)
    wait_until(lambda: read(http, task_id)["failures"] == 1, 20, "its first attempt failed")
    shown = read(http, task_id)
    assert (shown["status"], shown["queue_position"]) == ("PENDING", None)
    assert 10 < shown["eta_s"] <= 20
    http.post(f"/v1/tasks/{task_id}/cancel")


def test_a_list_is_read_page_by_page(http: httpx.Client, worker: Any) -> None:
    tasks = [submit(http, metadata={"user": "pages"}) for _ in range(7)]
    wait_until(lambda: read(http, tasks[-1])["status"] == "COMPLETED", 30, "they end")
    seen: list[str] = []
    query = {"metadata.user": "pages", "limit": "3", "status": "COMPLETED", "engine": "mock"}
    sizes = []
    while True:
        page = http.get("/v1/tasks", params=query).json()
        seen += [one["task_id"] for one in page["data"]]
        sizes.append(len(page["data"]))
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert sizes == [3, 3, 1]
    assert seen == tasks[::-1]


def test_a_key_that_is_not_indexed_is_refused_by_name(http: httpx.Client) -> None:
    answer = http.get("/v1/tasks?metadata.order=17")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "metadata.order"
    assert "user" in answer.json()["errors"][0]["reason"]


def test_what_was_deleted_is_as_if_it_had_never_been(
    env: Environment, http: httpx.Client, worker: Any
) -> None:
    task_id = submit(http, prompt="canary-51f0", metadata={"user": "canary-51f0"})
    wait_until(lambda: read(http, task_id)["status"] == "COMPLETED", 20, "it ends")
    assert is_kept(env, "canary-51f0")

    assert http.delete(f"/v1/tasks/{task_id}").status_code == 204

    for method, path in [("GET", ""), ("DELETE", ""), ("POST", "/cancel")]:
        assert http.request(method, f"/v1/tasks/{task_id}{path}").status_code == 404
    assert http.get("/v1/tasks?metadata.user=canary-51f0").json() == {"data": [], "next_cursor": None}
    assert not is_kept(env, "canary-51f0")


def is_kept(env: Environment, text: str) -> bool:
    """Whether `text` stands in any key or value of the store."""
    store = redis.Redis.from_url(env["REDIS_URL"], decode_responses=True)
    reads: dict[str, Callable[[str], Any]] = {
        "string": store.get,
        "hash": store.hgetall,
        "zset": lambda name: store.zrange(name, 0, -1),
        "stream": store.xrange,
        "list": lambda name: store.lrange(name, 0, -1),
        "set": store.smembers,
        "none": str,
    }
    return any(text in f"{name} {reads[store.type(name)](name)}" for name in store.keys("*"))


def test_a_dead_letter_goes_with_its_task(http: httpx.Client, worker: Any) -> None:
    task_id = submit(http, metadata={"mock": {"failure": "permanent"}})
    wait_until(lambda: read(http, task_id)["status"] == "FAILED", 20, "it fails")
    letters = f"/v1/dead-letters/{task_id}"
    http.delete(f"/v1/tasks/{task_id}")
    assert http.get(letters).status_code == 404


def test_what_has_not_ended_is_not_deleted(http: httpx.Client) -> None:
    task_id = submit(http)
    answer = http.delete(f"/v1/tasks/{task_id}")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:textgen:problem:task-unfinished")
    assert read(http, task_id)["status"] == "PENDING"
    http.post(f"/v1/tasks/{task_id}/cancel")


def test_nothing_unknown_is_deleted(http: httpx.Client) -> None:
    for task_id in (new_task_id(), "nonsense"):
        assert http.delete(f"/v1/tasks/{task_id}").status_code == 404


def test_the_client_lists_and_deletes_over_http(url: str, worker: Any) -> None:
    with TextGenerationClient(url) as client:
        tasks = [client.submit_and_wait("Hello", metadata={"user": "remote"})["task_id"] for _ in range(3)]
        metadata = {"user": "remote"}
        assert [one["task_id"] for one in client.list(metadata=metadata)] == tasks[::-1]
        assert [one["task_id"] for one in client.list(metadata=metadata, limit=2)] == tasks[:0:-1]
        assert list(client.list(status="FAILED", metadata=metadata)) == []
        client.delete(tasks[1])
        assert [one["task_id"] for one in client.list(metadata=metadata)] == [tasks[2], tasks[0]]
        with pytest.raises(UnknownTask):
            client.delete(tasks[1])
        with pytest.raises(InvalidRequest, match="status"):
            client.list(status="DONE")
        with pytest.raises(InvalidRequest, match=r"metadata\.order"):
            list(client.list(metadata={"order": "1"}))
        slow = client.create_task("Hello", metadata={"mock": {"delay_s": 0.2, "tokens": 200}})
        with pytest.raises(TaskUnfinished):
            client.delete(slow)
        client._way.cancel(slow)
