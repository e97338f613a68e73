"""What is reserved for a task before it runs."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from textgen import prices
from textgen.admission import _reservation
from textgen.lifecycle import Record, new_task_id
from textgen.settings import Settings

PRICES = {"openai/small": {"prompt": 0, "completion": 1000}}


def reserved(given: dict[str, Any], **asked: Any) -> tuple[int, int]:
    settings = Settings(prices=json.dumps(PRICES), engine="mock", **given)
    store: Any = SimpleNamespace(prices=prices.from_settings(settings))
    found = _reservation(store, settings, Record(new_task_id(), prompt="Hi", params=asked))
    return found.tokens, found.nano


def test_the_default_model_has_its_price(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reserved({"OPENAI_MODEL": "small"}, engine="openai", max_tokens=10) == (11, 10_000_000)
