"""Who can reach what listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from textgen.errors import ConfigurationError
from textgen.exposure import is_loopback, is_own_name, refuse
from textgen.settings import Settings

ADMIN_KEY = "tg_" + "k" * 43


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost"])
def test_loopback_is_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "example.org", ""])
def test_all_else_is_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "authority", ["localhost", "LocalHost:8000", "localhost.", "a.localhost:1", "127.0.0.1:80", "[::1]:8000"]
)
def test_these_names_only_ever_mean_this_machine(authority: str) -> None:
    assert is_own_name(authority)


@pytest.mark.parametrize(
    "authority",
    [
        "evil.example",
        "localhost.evil.example:8000",
        "127.0.0.1.evil.example",
        "0.0.0.0:8000",
        "[::]",
        "[",
        "",
    ],
)
def test_other_names_may_mean_it_today(authority: str) -> None:
    assert not is_own_name(authority)


def test_the_admin_key_can_be_a_file_among_the_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "textgen_admin_key").write_text(f"{ADMIN_KEY}\n")
    monkeypatch.setenv("TEXTGEN_ADMIN_KEY", "")  # as docker-compose.yml has it
    found = Settings(_secrets_dir=tmp_path)
    assert (found.requires_keys, found.admin_key.get_secret_value()) == (True, ADMIN_KEY)


def test_others_are_let_in_with_keys_only() -> None:
    refuse(["127.0.0.1", "::1"], Settings())
    refuse(["192.0.2.1"], Settings(require_keys=True))
    refuse(["192.0.2.1"], Settings(admin_key=ADMIN_KEY))
    with pytest.raises(ConfigurationError, match=r"reaches 192\.0\.2\.1 .*textgen keys create"):
        refuse(["127.0.0.1", "192.0.2.1"], Settings())
