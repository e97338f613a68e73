"""Which addresses webhooks may be sent to."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from textgen.errors import AddressRefused, ConfigurationError, InvalidRequest
from textgen.requests import parse_request
from textgen.settings import Settings, get_settings
from textgen.webhooks import guard, lookup
from textgen.webhooks.guard import Guard, parse
from textgen.webhooks.lookup import Unresolved

PUBLIC = "93.184.215.14"


def guarded(*addresses: str, **settings: str) -> Guard:
    """A guard for whom every name leads to `addresses`."""
    return Guard(Settings(**settings), lambda _host, _port: [ipaddress.ip_address(one) for one in addresses])


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1"),
        *("192.168.1.1", "192.0.0.9", "192.0.2.1", "192.88.99.1", "198.18.0.1", "203.0.113.5", "224.0.0.1"),
        *("240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::", "::1", "::127.0.0.1", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "ff0e::1"),
        *("2001:db8::1", "2001::1", "2002:7f00:1::", "3fff::1", "5f00::1", "100::1", "100:0:0:1::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "::ffff:0:7f00:1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="not public"):
        guarded(address).addresses(parse("https://example.com/"))
    with pytest.raises(AddressRefused, match="not public"):
        guarded(PUBLIC, address).addresses(parse("https://example.com/"))


@pytest.mark.parametrize("address", [PUBLIC, "2606:4700::1111", "64:ff9b::5db8:d70e"])
def test_a_public_address_is_taken(address: str) -> None:
    assert [str(one) for one in guarded(address).addresses(parse("https://example.com/"))] == [address]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://example.com/",
            "ftp://example.com/",
            "//example.com/",
            "example.com",
            "https://",
            "https:///x",
        ),
        *("https://user:pw@example.com/", "https://user@example.com/", "https://@example.com/"),
        *(
            "https://example.com:22/",
            "https://example.com:8443/",
            "https://example.com:0/",
            "https://a:99999/",
        ),
        *("https://example.com/#x", "https://exa mple.com/", "https://example.com\\@127.0.0.1/"),
        *(
            "https://example.com/\r\nHost: x",
            "https://bücher.example/",
            "https://[::1%25lo]/",
            "https://[::1/",
        ),
        *("https://-x.com/", "https://a/" + "b" * 2048, "https://ex\u2025mple.com", "https://[v1.x]/"),
    ],
)
def test_a_url_that_no_webhook_may_have_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        guarded(PUBLIC).addresses(parse(url))


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "[::1]", "169.254.169.254", "0x7f000001", "2130706433", "0177.0.0.1", "127.1", "0"),
        *("localhost", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
    ],
)
def test_no_notation_of_a_private_address_is_let_in(host: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        guard.admit(f"https://{host}/", get_settings())
    assert [error["field"] for error in refused.value.errors] == ["webhook.url"]


def test_a_request_names_the_field_and_not_the_address() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request({"prompt": "x", "webhook": {"url": "https://user:canary@example.com/"}})
    assert [error["field"] for error in refused.value.errors] == ["webhook.url"]
    assert "canary" not in str(refused.value)


def test_what_is_allowed_may_be_private_plain_and_on_any_port() -> None:
    for url, allow in (
        ("http://hooks.internal:9000/", "hooks.internal"),
        ("http://HOOKS.internal:9000/", " x.example , Hooks.Internal "),
        ("http://anything:9000/", "10.0.0.0/8"),
        ("https://anything/", "10.1.2.3/32"),
        ("http://[fd00::1]/", "10.0.0.0/8,fd00::1"),
    ):
        assert guarded("10.1.2.3", webhook_allow=allow).addresses(parse(url))


def test_what_is_allowed_opens_nothing_else() -> None:
    allowed = {"webhook_allow": "hooks.internal,10.0.0.0/8"}
    for address, url in (
        ("192.168.0.1", "https://example.com/"),
        ("192.168.0.1", "https://hooks.internal.example.com/"),
        (PUBLIC, "http://example.com/"),
        (PUBLIC, "https://example.com:9000/"),
        ("127.0.0.1", "http://example.com:9000/"),
    ):
        with pytest.raises(AddressRefused):
            guarded(address, **allowed).addresses(parse(url))
    with pytest.raises(AddressRefused):  # one address inside is not enough
        guarded("10.1.2.3", "127.0.0.1", **allowed).addresses(parse("https://example.com/"))
    with pytest.raises(AddressRefused):
        guarded("10.1.2.3", PUBLIC, **allowed).addresses(parse("http://example.com/"))


def test_further_ports_can_be_allowed() -> None:
    assert guarded(PUBLIC, webhook_ports="443, 8443").addresses(parse("https://example.com:8443/"))


def test_an_allow_list_that_is_none_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTGEN_WEBHOOK_ALLOW", "10.0.0.0/99")
    get_settings.cache_clear()
    with pytest.raises(ConfigurationError, match="TEXTGEN_WEBHOOK_ALLOW"):
        get_settings()
    get_settings.cache_clear()


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN])
def test_a_name_that_leads_nowhere_just_now_keeps_nobody_out(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    guard.admit("https://example.com/", get_settings())


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost/",
        "https://0/",
        "https://[2606:4700::1]/",
        "https://1.1.1.1/",
        "https://a.b_c/",
    ],
)
def test_a_receiver_in_public_has_a_name_that_can_be_public(url: str) -> None:
    with pytest.raises(InvalidRequest, match="can be public"):
        guard.admit(url, get_settings())


def test_looking_up_a_name_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait() and [])
    with pytest.raises(Unresolved) as unresolved:
        lookup.resolve("example.com", 443, 0.05)
    over.set()
    assert unresolved.value.is_temporary


def test_only_so_many_names_are_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    over, asked = threading.Event(), []
    look_up = socket.getaddrinfo

    def never(host: str, *args: Any, **named: Any) -> object:
        # Clients that other tests left behind look up their own hosts meanwhile.
        if not host.endswith(".example"):
            return look_up(host, *args, **named)
        asked.append(host)
        over.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(lookup, "_lookups", threading.BoundedSemaphore(2))
    for host in ("a.example", "b.example", "c.example"):
        with pytest.raises(Unresolved):
            lookup.resolve(host, 443, 0.05)
    assert asked == ["a.example", "b.example"]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("192.0.2.1", 443))])
    over.set()
    assert [str(one) for one in lookup.resolve("d.example", 443)] == ["192.0.2.1"]


def test_the_host_header_names_a_port_that_is_not_the_usual_one() -> None:
    assert parse("https://Example.com/a?b").authority == "example.com"
    assert parse("https://example.com:8443").authority == "example.com:8443"
    assert parse("http://[fd00::1]:80/").authority == "[fd00::1]"
    assert parse("https://example.com?b=c").target == "/?b=c"
