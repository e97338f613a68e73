"""Which ports a stack may use, and what is said of one that it may not."""

import socket
from collections.abc import Iterator

import pytest

from textgen.errors import ConfigurationError
from textgen.stack.ports import FREE_PORTS, free_port, settle_port, url_of


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_an_error_that_names_port_and_setting(taken_port: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settle_port("127.0.0.1", taken_port, "--port", "TEXTGEN_PORT")
    message = str(caught.value)
    assert f"port {taken_port} on 127.0.0.1" in message
    assert "address already in use" in message
    assert "--port" in message
    assert "TEXTGEN_PORT" in message


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1.*cannot assign"):
        settle_port("192.0.2.1", 8000, "--port", "TEXTGEN_PORT")
    with pytest.raises(ConfigurationError, match="cannot bind any port"):
        free_port("192.0.2.1")


def test_port_0_is_any_free_one() -> None:
    assert settle_port("127.0.0.1", 0, "--port", "TEXTGEN_PORT") in FREE_PORTS


def test_a_preferred_port_is_kept_while_it_is_free(taken_port: int) -> None:
    port = free_port("127.0.0.1")
    assert free_port("127.0.0.1", port) == port
    assert free_port("127.0.0.1", taken_port) != taken_port


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_the_url_is_one_that_this_machine_reaches(host: str, url: str) -> None:
    assert url_of(host, 80) == url
