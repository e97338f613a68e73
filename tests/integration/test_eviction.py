"""A Redis that would evict accepted tasks is refused before it can."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from tests import environment
from tests.environment import new_folder
from tests.services import PrivateValkey


@pytest.fixture
def evicting() -> Iterator[environment.Environment]:
    folder = new_folder("evicting")
    with PrivateValkey(folder) as server:
        server.client().config_set("maxmemory-policy", "volatile-lru")
        yield environment.variables(server.url_of(1), server.url_of(0), folder)


def test_a_worker_refuses_it_and_says_what_to_do(evicting: dict, start_worker: Callable) -> None:
    worker = start_worker(evicting)
    assert worker.wait(30) == 78
    assert "set maxmemory-policy noeviction" in worker.log()


def test_the_web_app_takes_no_task_and_is_not_ready(evicting: dict, start_web: Callable) -> None:
    web = start_web(evicting)
    answer = httpx.post(f"{web.url}/v1/tasks", json={"prompt": "hello"})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert "noeviction" in httpx.get(f"{web.url}/readyz").text


def test_it_is_used_where_that_was_accepted(evicting: dict, start_worker: Callable) -> None:
    start_worker(evicting | {"TEXTGEN_ALLOW_EVICTION": "true"}).wait_ready()
