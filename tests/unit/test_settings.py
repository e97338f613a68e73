"""What is said of settings that are wrong."""

from __future__ import annotations

import json
import re

import pytest

from textgen import servers
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


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"])
@pytest.mark.parametrize(
    "address", ["127.0.0.1:9001", "ftp://host/v1", "http://", "http://[::1", "http://h:x"]
)
def test_the_address_of_a_provider_is_one_by_http(read, variable, address):
    with pytest.raises(ConfigurationError, match=f"^{variable}: must be an address such as http://"):
        read(**{variable: address})
    assert read(**{variable: " http://[::1]:9001/v1 \n"}).model_dump()[variable.lower()].endswith("1/v1")


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "TEXTGEN_API_KEY"])
@pytest.mark.parametrize("key", ["sk-…", "sk\n-a", "sk-\x07"])
def test_a_key_that_no_header_carries_is_refused_without_being_told(read, variable, key):
    with pytest.raises(ConfigurationError, match=f"^{variable}: has characters") as caught:
        read(**{variable: key})
    assert key not in str(caught.value)


def test_white_space_around_a_key_is_none_of_it(read):
    assert read(OPENAI_API_KEY="sk-abc\n").openai_api_key.get_secret_value() == "sk-abc"


@pytest.mark.parametrize(
    ("described", "where"),
    [
        ({"api_key": "sk-…"}, "lab.api_key: has characters"),
        ({"headers": {"X-Title": "…"}}, "lab.headers.X-Title: has characters"),
        ({"headers": {"X Title": "a"}}, "lab.headers.X Title"),
        ({"base_url": "localhost:8000"}, "lab.base_url: must be an address"),
    ],
)
def test_so_it_is_with_servers_that_are_named(described, where):
    table = json.dumps({"lab": {"base_url": "http://localhost:8000"} | described})
    with pytest.raises(ConfigurationError, match=f"TEXTGEN_SERVERS: {re.escape(where)}"):
        servers.from_settings(Settings(servers=table))
