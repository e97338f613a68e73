"""The two classes for scripts, straight to broker and store and over HTTP."""

from collections.abc import Callable

import pytest

from tests.environment import Environment
from textgen.client import TextGenerationClient, TextGenerationProducer
from textgen.errors import InvalidRequest, UnknownTask, WaitTimeout
from textgen.lifecycle import new_task_id

#: Long enough to be waited for in vain, and soon out of the way of other tests.
SLOW = {"mock": {"delay_s": 0.2, "tokens": 15}}


@pytest.fixture(scope="module", params=["direct", "http"])
def url(
    request: pytest.FixtureRequest,
    live: Environment,
    module_start_worker: Callable,
    module_start_web: Callable,
) -> str | None:
    module_start_worker(live).wait_ready()
    return module_start_web(live).url if request.param == "http" else None


def test_a_prompt_is_submitted_and_its_record_comes_back_when_it_ended(url: str | None) -> None:
    with TextGenerationClient(url) as client:
        record = client.submit_and_wait(prompt="hello", metadata={"who": "me"}, max_tokens=3)
    assert record["status"] == "COMPLETED"
    assert record["result"]
    assert record["metadata"] == {"who": "me"}
    assert record["usage"]["completion_tokens"] == 3


def test_a_task_is_created_and_its_record_read(url: str | None) -> None:
    with TextGenerationProducer(url) as producer:
        task_id = producer.create_task(prompt="hello", metadata=SLOW)
        assert producer.get_task_status(task_id)["task_id"] == task_id


def test_a_wait_that_is_too_short_names_the_task_and_its_last_state(url: str | None) -> None:
    with TextGenerationClient(url) as client, pytest.raises(WaitTimeout, match=r"^task .{36} is P\w+ING"):
        client.submit_and_wait(prompt="hello", metadata=SLOW, poll_interval=0.1, max_attempts=5)


def test_an_unknown_id_is_an_error_of_its_own(url: str | None) -> None:
    with TextGenerationProducer(url) as producer, pytest.raises(UnknownTask):
        producer.get_task_status(new_task_id())


def test_a_wrong_prompt_is_refused_before_anything_is_sent(url: str | None) -> None:
    with TextGenerationProducer(url) as producer, pytest.raises(InvalidRequest, match="prompt"):
        producer.create_task(prompt=" ")


def test_a_record_is_displayed_with_its_text(url: str | None, capsys: pytest.CaptureFixture) -> None:
    with TextGenerationClient(url) as client:
        record = client.submit_and_wait(prompt="hello")
        client.display_result(record)
    shown = capsys.readouterr().out
    assert record["task_id"] in shown
    assert record["result"].split()[0] in shown
