"""What is said of settings that are wrong."""

from __future__ import annotations

import pytest

from textgen.errors import ConfigurationError
from textgen.settings import Settings, get_settings


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> object:
    """`read(NAME="value")`: the settings in such an environment."""

    def settings(**variables: str) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return get_settings.__wrapped__()

    return settings


@pytest.mark.parametrize("variable", ["TEXTGEN_PORT", "RABBITMQ_PORT"])
def test_a_wrong_setting_is_called_by_its_variable(read, variable):
    with pytest.raises(ConfigurationError, match=f"^{variable}: Input should be a valid integer"):
        read(**{variable: "abc"})


def test_all_wrong_settings_are_told_at_once_and_without_what_python_calls_an_error(read):
    with pytest.raises(ConfigurationError) as caught:
        read(TEXTGEN_ENGINE_LANES="bulk", PREFETCH_COUNT="0")
    assert "TEXTGEN_ENGINE_LANES: names what other queues are called" in str(caught.value)
    assert "PREFETCH_COUNT: Input should be" in str(caught.value)
