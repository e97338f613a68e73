"""Where Flower may listen, and with which login."""

from __future__ import annotations

import pytest

from textgen.dashboard import refuse


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_loopback_no_login_is_needed(address: str) -> None:
    assert refuse(address, None, "") is None


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "flower", "127.1.evil"])
def test_elsewhere_it_is_and_the_message_says_what_to_do(address: str) -> None:
    message = refuse(address, None, "")

    assert message
    assert f"listen on {address}" in message
    assert "--basic-auth=USER:PASSWORD" in message


@pytest.mark.parametrize("logins", [["boss:secret"], ["boss:secret", "clerk:se:cret"]])
def test_logins_open_every_address(logins: list[str]) -> None:
    assert refuse("0.0.0.0", logins, "") is None


def test_oauth_opens_every_address() -> None:
    assert refuse("0.0.0.0", None, ".*@example.com") is None


@pytest.mark.parametrize("logins", [[], [""], [":"], ["boss:"], [":secret"], ["boss"], ["boss:secret", ""]])
def test_a_login_that_lets_everybody_in_is_none(logins: list[str]) -> None:
    assert refuse("0.0.0.0", logins, "") is not None
