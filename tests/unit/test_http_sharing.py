"""What browsers are told: security headers, and which other sites may call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from textgen import settings
from textgen.http import create_app
from textgen.http.sharing import HEADERS

OURS, OTHER = "https://app.example.com", "https://evil.example.com"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FlaskClient]:
    def make(origins: str = "", **variables: str) -> FlaskClient:
        monkeypatch.setenv("TEXTGEN_CORS_ORIGINS", origins)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings.get_settings.cache_clear()
        return create_app().test_client()

    yield make
    settings.get_settings.cache_clear()


@pytest.mark.parametrize(
    "path", ["/healthz", "/openapi.json", "/unknown", "/v1/tasks/x", "/docs/swagger-ui.css"]
)
def test_every_answer_has_the_security_headers(web: Callable[..., FlaskClient], path: str) -> None:
    answer = web().get(path)
    own = {"Cache-Control"} if path.startswith("/docs") else set()
    for name, value in HEADERS.items():
        assert name in own or answer.headers[name] == value
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Server" not in answer.headers
    answer.close()


def test_the_page_allows_no_script_but_its_own(web: Callable[..., FlaskClient]) -> None:
    policy = web().get("/docs").headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy


def test_no_other_site_may_call_unless_it_is_named(web: Callable[..., FlaskClient]) -> None:
    client = web()
    assert client.options("/v1/tasks", headers={"Origin": OURS, **PREFLIGHT}).status_code == 405
    assert not [n for n, _ in client.get("/healthz", headers={"Origin": OURS}).headers if "Allow" in n]


def test_a_named_site_may_call_and_another_may_not(web: Callable[..., FlaskClient]) -> None:
    client = web(f"{OURS}, http://localhost:3000", TEXTGEN_REQUIRE_KEYS="true")
    allowed = client.options("/v1/tasks", headers={"Origin": OURS, **PREFLIGHT})
    assert allowed.status_code == 200  # without a key: browsers show none when they ask
    assert allowed.headers["Access-Control-Allow-Origin"] == OURS
    assert "authorization" in allowed.headers["Access-Control-Allow-Headers"].lower()
    refused = client.options("/v1/tasks", headers={"Origin": OTHER, **PREFLIGHT})
    assert "Access-Control-Allow-Origin" not in refused.headers
    unauthenticated = client.get("/v1/tasks", headers={"Origin": OURS})
    assert (unauthenticated.status_code, unauthenticated.headers["Access-Control-Allow-Origin"]) == (
        401,
        OURS,
    )
    assert "Retry-After" in unauthenticated.headers["Access-Control-Expose-Headers"]


def test_what_is_no_origin_is_refused(web: Callable[..., FlaskClient]) -> None:
    from textgen.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="cors_origins"):
        web("app.example.com")
