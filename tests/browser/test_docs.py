"""The documentation page in a real browser: it shows the API, tries it, and asks nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.environment import Environment
from tests.processes import wait_until


@pytest.fixture
def url(stack_env: Callable[..., Environment], start_web: Callable[..., Any]) -> str:
    return str(start_web(stack_env("valkey")).url)


def test_the_page_shows_every_operation_and_tries_one(browser: Chrome, url: str) -> None:
    browser.get(f"{url}/")  # leads there
    wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, ".opblock"), 30, "the operations are shown")
    shown = {
        block.text.split("\n")[1] for block in browser.find_elements(By.CSS_SELECTOR, ".opblock-summary")
    }
    assert {"/v1/tasks", "/v1/tasks/{task_id}/events", "/v1/usage", "/healthz"} <= shown

    browser.find_element(By.CSS_SELECTOR, "#operations-health-isAlive .opblock-summary").click()
    wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, ".try-out__btn"), 10, "it can be tried")
    browser.find_element(By.CSS_SELECTOR, ".try-out__btn").click()
    browser.find_element(By.CSS_SELECTOR, ".execute").click()
    wait_until(
        lambda: '"alive"' in browser.find_element(By.CSS_SELECTOR, "#operations-health-isAlive").text,
        10,
        "the answer is shown",
    )
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert asked
    assert [one for one in asked if not one.startswith((url, "data:"))] == []
    refused = [entry for entry in browser.get_log("browser") if "Content Security Policy" in entry["message"]]
    assert refused == [], json.dumps(refused)
