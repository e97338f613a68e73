"""Prices that cannot be reckoned with are wrong settings."""

from __future__ import annotations

import json

import pytest

from textgen import prices
from textgen.errors import ConfigurationError
from textgen.settings import Settings


@pytest.mark.parametrize("price", [-1, 1e300, 100_001, "NaN"])
def test_a_price_that_cannot_be_is_refused_by_name(price: object) -> None:
    table = json.dumps({"mock": {"prompt": 1, "completion": price}})
    with pytest.raises(ConfigurationError, match=r"TEXTGEN_PRICES: mock\.completion: "):
        prices.from_settings(Settings(prices=table))


def test_the_highest_price_can_be_reckoned_exactly() -> None:
    [price] = prices.from_settings(
        Settings(prices='{"mock": {"prompt": 100000, "completion": 100000}}')
    ).table.values()
    assert price.nano(10_000_000, 10_000_000) < 2**53
