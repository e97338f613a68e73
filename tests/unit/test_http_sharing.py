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

    with pytest.raises(ConfigurationError, match="TEXTGEN_CORS_ORIGINS"):
        web("app.example.com")


LOCAL = "http://localhost:8000"


@pytest.mark.parametrize(
    ("base", "origin"),
    [
        ("http://evil.example.com:8000", None),
        ("http://evil.example.com:8000", "http://evil.example.com:8000"),
        ("http://0.0.0.0:8000", None),
        (LOCAL, OTHER),
        (LOCAL, "null"),
        (LOCAL, "http://localhost:3000"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/webhooks/secret", "/v1/tasks", "/v1/dead-letters/x/replay"])
def test_without_keys_no_page_of_another_site_gets_in(
    web: Callable[..., FlaskClient], base: str, origin: str | None, path: str
) -> None:
    headers = {"Origin": origin} if origin else {}
    answer = web().post(path, base_url=base, headers=headers)
    assert (answer.status_code, answer.json["type"]) == (403, "urn:textgen:problem:keys-required")


@pytest.mark.parametrize("base", [LOCAL, "http://127.0.0.1:8000", "http://[::1]:8000"])
@pytest.mark.parametrize("origin", [None, "its own", OURS])
def test_without_keys_this_machine_its_own_page_and_named_sites_get_in(
    web: Callable[..., FlaskClient], base: str, origin: str | None
) -> None:
    headers = {"Origin": base if origin == "its own" else origin} if origin else {}
    assert web(OURS).post("/v1/tasks", base_url=base, headers=headers).status_code == 400


def test_with_keys_it_answers_to_any_name(web: Callable[..., FlaskClient]) -> None:
    client = web(TEXTGEN_REQUIRE_KEYS="true")
    assert client.get("/healthz", base_url="https://api.example.com").status_code == 200
    given = {"Origin": OTHER}
    assert client.get("/v1/tasks", base_url="https://api.example.com", headers=given).status_code == 401
