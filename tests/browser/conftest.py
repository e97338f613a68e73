"""A headless Chromium, driven by Selenium, and the Flowers it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.browser.flower import FlowerProcess
from tests.environment import new_folder
from tests.processes import require

#: Chromium keeps to itself what it would otherwise ask the network.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1400,1000"),
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """A browser with an empty profile."""
    options = ChromeOptions()
    options.binary_location = require("chromium", "chromium")
    for flag in (*FLAGS, f"--user-data-dir={new_folder('chromium')}"):
        options.add_argument(flag)
    driver = Chrome(options=options, service=Service(require("chromedriver", "chromium-driver")))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def start_flower() -> Iterator[Callable[..., FlowerProcess]]:
    """`start_flower(env, *args)`; then `.wait_ready()`. It is killed at the end of the test."""
    with ExitStack() as stack:
        yield lambda *args: stack.enter_context(FlowerProcess(*args))
