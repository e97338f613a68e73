"""The life of a task on real servers and a real worker, in every pool, through `celery_setup`.

All but the last tests of an arrangement share one worker; those that kill it start it again.
"""

from __future__ import annotations

import signal
import uuid
from typing import Any

import pytest
from celery import chain, group

from tests.arrangement import ARRANGEMENTS, TextgenSetup
from tests.processes import wait_until

#: Seconds that anything may take here at the most: a lease of 8 s runs out in some tests.
PATIENCE_S = 40
#: Seconds the mock engine waits before a token in tasks that something is to happen to.
DELAY_S = 0.05

#: Slots of the worker, or more: the solo pool has one.
SLOTS = 4

PREFORK = [arrangement for arrangement in ARRANGEMENTS if arrangement.pool == "prefork"]


def mock(**behaviour: Any) -> dict[str, Any]:
    """The arguments of a request that tell the mock engine how to behave."""
    return {"engine": "mock", "metadata": {"mock": behaviour}}


def streaming(tokens: int = 60) -> dict[str, Any]:
    """The arguments of a request that takes `tokens` times `DELAY_S`."""
    return {**mock(delay_s=DELAY_S, tokens=tokens), "max_tokens": 1000}


def states(setup: TextgenSetup, task_id: str) -> list[str]:
    """The states that the event log of a terminal task shows, in order."""
    return [event.data["status"] for event in log_of(setup, task_id) if event.type == "state"]


def log_of(setup: TextgenSetup, task_id: str) -> list[Any]:
    return [event for event in setup.client.stream(task_id) if event is not None]


def wait_for_status(setup: TextgenSetup, task_id: str, status: str) -> None:
    wait_until(lambda: setup.client.get(task_id).status == status, PATIENCE_S, f"{task_id} is {status}")


def wait_for_chunk(setup: TextgenSetup, task_id: str) -> None:
    """Wait until the task's first text is in its event log."""
    for event in setup.client.stream(task_id):
        if event is not None and event.type == "chunk":
            return
    raise AssertionError(f"{task_id} ended without any text")


def finished(setup: TextgenSetup, task_id: str) -> Any:
    """The record of a task once it is terminal."""
    record = setup.client.wait(task_id, PATIENCE_S)
    assert record.status.is_terminal, f"{task_id} is still {record.status}"
    return record


def test_generated_text_comes_back(celery_setup: TextgenSetup) -> None:
    result = celery_setup.generate.delay("Count to ten.", engine="mock", max_tokens=20)

    text = result.get(timeout=PATIENCE_S)

    record = celery_setup.client.get(result.id)
    assert text
    assert (record.status, record.result, record.attempt) == ("COMPLETED", text, 1)
    assert (record.engine, record.error, record.failures) == ("mock", None, 0)
    assert record.usage.completion_tokens > 0
    assert result.state == "SUCCESS"
    assert states(celery_setup, result.id) == ["PENDING", "PROCESSING", "COMPLETED"]
    assert "".join(e.data["text"] for e in log_of(celery_setup, result.id) if e.type == "chunk") == text


def test_every_key_of_a_finished_task_expires(celery_setup: TextgenSetup) -> None:
    result = celery_setup.generate.delay("Hello", engine="mock", ttl_s=100)
    result.get(timeout=PATIENCE_S)

    redis = celery_setup.backend.container.client
    keys = [key for key in redis.scan_iter(f"*{result.id}*") if result.id in key]

    assert f"task:{result.id}" in keys
    assert 0 < redis.ttl(f"task:{result.id}") <= 100
    assert {key: redis.ttl(key) for key in keys if redis.ttl(key) <= 0} == {}


def test_a_prompt_and_its_result_stay_out_of_the_log(celery_setup: TextgenSetup) -> None:
    canary = uuid.uuid4().hex
    text = celery_setup.generate.delay(f"Say {canary}", engine="mock").get(timeout=PATIENCE_S)
    failing = celery_setup.generate.delay(f"Say {canary}", **mock(failure="raises"))
    finished(celery_setup, failing.id)

    log = celery_setup.worker.logs()
    assert failing.id in log, "what is looked at is the log of these tasks"
    assert canary not in log
    assert text not in log


def test_a_permanent_error_fails_the_task_at_once(celery_setup: TextgenSetup) -> None:
    result = celery_setup.generate.delay("Hello", **mock(failure="permanent"))

    with pytest.raises(Exception, match="PermanentEngineError") as raised:
        result.get(timeout=PATIENCE_S)

    record = celery_setup.client.get(result.id)
    assert type(raised.value).__name__ == "GenerationFailed"
    assert (record.status, record.attempt, record.error.retryable) == ("FAILED", 1, False)
    assert result.state == "FAILURE"
    assert states(celery_setup, result.id) == ["PENDING", "PROCESSING", "FAILED"]


def test_an_engine_that_breaks_fails_the_task(celery_setup: TextgenSetup) -> None:
    result = celery_setup.generate.delay("Hello", **mock(failure="raises"))

    record = finished(celery_setup, result.id)

    assert (record.status, record.attempt) == ("FAILED", 1)


def test_a_transient_error_is_tried_again(celery_setup: TextgenSetup) -> None:
    result = celery_setup.generate.delay("Hello", **mock(failure="transient", times=1))

    text = result.get(timeout=PATIENCE_S)

    record = celery_setup.client.get(result.id)
    assert (record.status, record.attempt, record.failures) == ("COMPLETED", 2, 1)
    assert (record.result, record.error) == (text, None)
    assert states(celery_setup, result.id) == ["PENDING", "PROCESSING", "PENDING", "PROCESSING", "COMPLETED"]


def test_a_running_task_is_cancelled_at_its_next_chunk(celery_setup: TextgenSetup) -> None:
    # one for each slot, and each would take longer than this test waits for what comes behind them
    running = [celery_setup.generate.delay("Hello", **streaming(tokens=900)) for _ in range(SLOTS)]
    wait_for_chunk(celery_setup, running[0].id)

    for result in running:
        assert celery_setup.client.cancel(result.id).status == "CANCELLED"

    with pytest.raises(Exception, match="cancelled") as raised:
        running[0].get(timeout=PATIENCE_S)
    assert type(raised.value).__name__ == "TaskRevokedError"
    celery_setup.generate.delay("The engine has stopped", engine="mock").get(timeout=15)
    record = celery_setup.client.get(running[0].id)
    chunks = [event.data["text"] for event in log_of(celery_setup, record.task_id) if event.type == "chunk"]
    assert record.status == "CANCELLED"
    assert 0 < len(chunks) < 400
    assert record.result == "".join(chunks)
    assert states(celery_setup, record.task_id) == ["PENDING", "PROCESSING", "CANCELLED"]


def test_revoking_a_running_task_cancels_it(celery_setup: TextgenSetup) -> None:
    result = celery_setup.generate.delay("Hello", **streaming(tokens=800))
    wait_for_chunk(celery_setup, result.id)

    result.revoke(terminate=True)

    record = finished(celery_setup, result.id)
    assert record.status == "CANCELLED"
    assert record.result
    assert result.state == "REVOKED"
    celery_setup.generate.delay("The worker lives", engine="mock").get(timeout=PATIENCE_S)


def test_a_queued_task_that_is_cancelled_never_runs(celery_setup: TextgenSetup) -> None:
    blockers = [celery_setup.generate.delay("Hello", **streaming(tokens=800)) for _ in range(SLOTS)]
    wait_for_chunk(celery_setup, blockers[0].id)
    waiting = celery_setup.generate.delay("Never", engine="mock")

    assert celery_setup.client.cancel(waiting.id).status == "CANCELLED"
    for blocker in blockers:
        celery_setup.client.cancel(blocker.id)

    celery_setup.generate.delay("Behind it", engine="mock").get(timeout=PATIENCE_S)
    record = celery_setup.client.get(waiting.id)
    assert (record.status, record.attempt, record.result) == ("CANCELLED", 0, None)
    assert states(celery_setup, waiting.id) == ["PENDING", "CANCELLED"]


def test_a_task_of_the_bulk_lane_completes(celery_setup: TextgenSetup) -> None:
    result = celery_setup.generate.delay("Hello", engine="mock", lane="bulk")

    assert result.get(timeout=PATIENCE_S)
    assert celery_setup.client.get(result.id).lane == "bulk"


def test_a_group_gives_all_its_texts_in_order(celery_setup: TextgenSetup) -> None:
    prompts = [f"Number {n}" for n in range(5)]

    results = group(celery_setup.generate.s(prompt, engine="mock") for prompt in prompts)()

    texts = results.get(timeout=PATIENCE_S)
    records = [celery_setup.client.get(result.id) for result in results]
    assert [record.prompt for record in records] == prompts
    assert [record.result for record in records] == texts
    assert len(set(texts)) == 5


def test_the_text_of_a_link_is_the_prompt_of_the_next(celery_setup: TextgenSetup) -> None:
    generate = celery_setup.generate

    last = chain(generate.s("First", engine="mock"), generate.s(engine="mock"))()

    last.get(timeout=PATIENCE_S)
    first = last.parent
    assert celery_setup.client.get(last.id).prompt == celery_setup.client.get(first.id).result


# These tests kill the worker


def test_a_task_whose_worker_is_killed_completes_once(celery_setup: TextgenSetup) -> None:
    whole = celery_setup.generate.delay("Hello", **mock(tokens=60), max_tokens=1000).get(timeout=PATIENCE_S)
    result = celery_setup.generate.delay("Hello", **streaming(tokens=60))
    wait_for_chunk(celery_setup, result.id)

    celery_setup.worker.kill()
    assert celery_setup.client.get(result.id).status == "PROCESSING"
    celery_setup.worker.restart()

    record = finished(celery_setup, result.id)
    assert (record.status, record.attempt, record.result) == ("COMPLETED", 2, whole)
    assert result.get(timeout=PATIENCE_S) == whole
    log = log_of(celery_setup, result.id)
    second = [event.data["text"] for event in log if event.type == "chunk" and event.attempt == 2]
    assert "".join(second) == whole
    assert states(celery_setup, result.id).count("COMPLETED") == 1
    assert [event.type for event in log].count("reset") == 1, "readers learn that the first text is void"


@pytest.mark.parametrize("arrangement", PREFORK, indirect=True, ids=str)
def test_a_task_whose_pool_child_is_killed_completes(celery_setup: TextgenSetup) -> None:
    result = celery_setup.generate.delay("Hello", **streaming(tokens=60))
    wait_for_chunk(celery_setup, result.id)

    worker = celery_setup.worker
    children = celery_setup.app.control.inspect([worker.hostname()]).stats()[worker.hostname()]["pool"][
        "processes"
    ]
    for pid in children:
        worker.container.exec_run(["python", "-c", f"import os; os.kill({pid}, {signal.SIGKILL:d})"])

    record = finished(celery_setup, result.id)
    assert (record.status, record.attempt) == ("COMPLETED", 2)


def test_a_task_submitted_while_there_is_no_worker_waits_for_one(celery_setup: TextgenSetup) -> None:
    celery_setup.worker.kill()
    result = celery_setup.generate.delay("Hello", engine="mock")

    record = celery_setup.client.wait(result.id, 0.5)
    assert (record.status, record.attempt) == ("PENDING", 0)
    assert result.state == "PENDING"

    celery_setup.worker.restart()
    assert finished(celery_setup, result.id).status == "COMPLETED"


def test_a_task_sent_to_a_worker_that_dies_before_it_looks_completes(celery_setup: TextgenSetup) -> None:
    celery_setup.worker.kill(signal="SIGSTOP")
    result = celery_setup.generate.delay("Hello", engine="mock")
    # a frozen worker has been handed what its broker had for it, and does not know
    assert celery_setup.client.wait(result.id, 1).status == "PENDING"

    celery_setup.worker.kill()
    celery_setup.worker.restart()

    assert finished(celery_setup, result.id).status == "COMPLETED"
