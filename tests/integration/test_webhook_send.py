"""Sending one webhook: pinned to what was looked at, bounded in time and size, verified by TLS."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.receiver import Receiver, certificate
from textgen.settings import Settings
from textgen.webhooks import send
from textgen.webhooks.guard import Guard
from textgen.webhooks.lookup import Address
from textgen.webhooks.send import Answer

LOOPBACK = ipaddress.ip_address("127.0.0.1")


def guarded(*answers: list[Address], allow: str = "127.0.0.0/8") -> Guard:
    """A guard whose look-ups answer in turn, the last for ever."""
    left = list(answers)
    look_up = lambda _host, _port: left.pop(0) if len(left) > 1 else left[0]  # noqa: E731
    return Guard(Settings(webhook_allow=allow), look_up)


def post(url: str, guard: Guard, timeout_s: float = 1.0) -> Answer:
    return send.post(url, {"webhook-id": "msg_x"}, '{"é": 1}', guard, timeout_s)


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A certificate for hooks.example.com that this process believes."""
    file = certificate(tmp_path, "hooks.example.com")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    send._tls.cache_clear()
    yield file
    send._tls.cache_clear()


def test_it_connects_to_the_address_looked_at_by_the_name_of_the_host(trusted: Path) -> None:
    names: list[str] = []
    with Receiver(certificate=trusted, sni=names) as receiver:
        answer = post(f"https://hooks.example.com:{receiver.port}/a?b=c", guarded([LOOPBACK]))
        (received,) = receiver.received
    assert (answer.status_code, answer.reason, answer.is_success) == (200, "", True)
    assert names == ["hooks.example.com"]
    assert received.headers["host"] == f"hooks.example.com:{receiver.port}"
    assert (received.path, received.body.decode()) == ("/a?b=c", '{"é": 1}')


def test_a_certificate_of_another_name_is_refused(trusted: Path) -> None:
    with Receiver(certificate=trusted) as receiver:
        answer = post(f"https://other.example.com:{receiver.port}/", guarded([LOOPBACK]))
        assert receiver.received == []
    assert (answer.status_code, answer.reason) == (None, "tls")


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    with Receiver(certificate=certificate(tmp_path, "hooks.example.com")) as receiver:
        answer = post(f"https://hooks.example.com:{receiver.port}/", guarded([LOOPBACK]))
    assert answer.reason == "tls"


def test_a_name_that_leads_inside_later_is_refused_when_sending() -> None:
    with Receiver() as receiver:
        url = f"https://hooks.example.com:{receiver.port}/"
        guard = Guard(
            Settings(webhook_ports=str(receiver.port)), lambda *_: [LOOPBACK]
        )  # what the name leads to by now
        answer = post(url, guard)
        assert receiver.received == []
    assert (answer.status_code, answer.reason) == (None, "address refused")


def test_the_name_is_looked_up_once_for_check_and_connection() -> None:
    """What a second look-up would give is never connected to."""
    with Receiver() as receiver:
        looked_up: list[str] = []

        def look_up(host: str, _port: int) -> list[Address]:
            looked_up.append(host)
            return [LOOPBACK]

        answer = post(
            f"http://nowhere.invalid:{receiver.port}/", Guard(Settings(webhook_allow="127.0.0.0/8"), look_up)
        )
    assert answer.is_success
    assert looked_up == ["nowhere.invalid"]


def test_an_address_that_does_not_answer_gives_way_to_the_next() -> None:
    with Receiver() as receiver:
        nobody = ipaddress.ip_address("127.0.0.9")
        answer = post(f"http://hooks.internal:{receiver.port}/", guarded([nobody, LOOPBACK]))
    assert answer.is_success


def test_no_proxy_of_the_environment_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver, Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert post(f"http://hooks.internal:{receiver.port}/", guarded([LOOPBACK])).is_success
        assert (len(receiver.received), len(proxy.received)) == (1, 0)


@pytest.mark.parametrize("answer", ["hang", "drip"])
def test_a_receiver_that_hangs_or_drips_costs_no_more_than_the_time_allowed(answer: str) -> None:
    with Receiver(answer) as receiver:
        began = time.monotonic()
        got = post(receiver.url, guarded([LOOPBACK]), 0.7)
    assert 0.6 < time.monotonic() - began < 1.5
    assert (got.status_code, got.reason) == (None, "timeout")


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    with Receiver("flood") as receiver:
        got = post(receiver.url, guarded([LOOPBACK]), 5)
        assert got.is_success
        assert got.duration_ms < 2000
        # what the sockets hold besides
        assert receiver.flooded < send.MAX_ANSWER_BYTES + 8_000_000


def test_a_redirect_is_a_failure() -> None:
    with Receiver() as elsewhere, Receiver((307, {"Location": elsewhere.url})) as receiver:
        got = post(receiver.url, guarded([LOOPBACK]))
        assert (got.status_code, got.reason, elsewhere.received) == (307, "redirect", [])


def test_nobody_there_is_a_failure() -> None:
    with Receiver() as receiver:
        pass
    assert post(receiver.url, guarded([LOOPBACK])).reason == "no connection"
