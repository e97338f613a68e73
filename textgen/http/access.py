"""Who calls: the API key that came with the request, and whether it may do this."""

from __future__ import annotations

from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars

from textgen import api_keys
from textgen.api_keys import Scope
from textgen.caller import Caller
from textgen.errors import Forbidden, Unauthenticated
from textgen.exposure import is_loopback, is_own_name
from textgen.http.problems import problem
from textgen.settings import Settings, get_settings

#: The security scheme of every operation that needs a key, as OpenAPI describes it.
BEARER = {"type": "http", "scheme": "bearer", "description": "An API key: `tg_…`."}
#: Endpoint → the scope that it needs; None: it needs no key. Every endpoint stands here.
SCOPES: dict[str, Scope | None] = {
    "tasks.submit": "generate",
    "tasks.cancel": "generate",
    "tasks.delete": "generate",
    "tasks.read": "read",
    "tasks.list_tasks": "read",
    "events.follow": "read",
    "usage.read": "read",
    "engines.list_engines": "read",
    "cache.clear": "generate",
    "webhooks.deliveries": "read",
    "webhooks.test": "generate",
    "webhooks.show_secret": "generate",
    "webhooks.rotate_secret": "generate",
    "dead-letters.newest": "admin",
    "dead-letters.read": "admin",
    "dead-letters.replay": "admin",
    "dead-letters.purge": "admin",
    "health.alive": None,
    "health.ready": None,
    "documentation.openapi": None,
    "docs.home": None,
    "docs.page": None,
    "docs.asset": None,
}


def caller() -> Caller:
    """On whose behalf the current request is made."""
    found: Caller = g.caller
    return found


def owner() -> str:
    """Whose tasks the current request is about."""
    return caller().owner


def require(scope: Scope) -> None:
    """Make sure that the caller may do something besides what the endpoint is for.

    Raises:
        Forbidden: It may not.
    """
    if scope not in g.scopes:
        raise Forbidden(scope)


def install(app: Flask) -> None:
    """Make `app` ask for keys, where the settings say so."""
    app.before_request(_admit)
    app.register_error_handler(Unauthenticated, _on_unauthenticated)
    app.register_error_handler(Forbidden, _on_forbidden)


def _admit() -> Response | None:
    if request.endpoint is None:
        return None  # an unknown route, or a method that it does not have
    if request.method == "OPTIONS":
        return None  # a browser asks what it may ask for, and shows no key
    settings, scope = get_settings(), SCOPES[request.endpoint]
    if not settings.requires_keys:
        if detail := _reason_against(settings):
            return problem(403, f"Without API keys, this server answers {detail}.", "keys-required")
        g.caller, g.scopes = Caller(settings.owner), frozenset(api_keys.SCOPES)
        return None
    if scope is None:
        return None
    key = api_keys.verify(_given())
    g.caller, g.scopes = key.caller, frozenset(key.scopes)
    bind_contextvars(owner=key.owner, key_id=key.id)
    require(scope)
    return None


def _reason_against(settings: Settings) -> str | None:
    """Say what keeps a request without a key out, or None if nothing does.

    Any page that is open in a browser here can call this machine: by its address, or by a name of the
    page's own that has come to mean this machine (DNS rebinding).
    """
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    if request.remote_addr:  # a client that comes by a socket in the file system has none
        if not is_loopback(request.remote_addr):
            return "its own machine only"
        if host and not is_own_name(host):
            return "only where it is called localhost or by a loopback address"
    if not origin or origin.partition("://")[2] == host or {origin, "*"} & {*settings.origins}:
        return None
    return "no pages of other sites but those in TEXTGEN_CORS_ORIGINS"


def _given() -> str:
    kind, _, key = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not key.strip():
        raise Unauthenticated("an API key is needed, as `Authorization: Bearer tg_…`")
    return key.strip()


def _on_unauthenticated(error: Unauthenticated) -> Response:
    detail = str(error)
    headers = {"WWW-Authenticate": 'Bearer realm="textgen"'}
    return problem(401, f"{detail[0].upper()}{detail[1:]}.", "unauthenticated", headers)


def _on_forbidden(error: Forbidden) -> Response:
    headers = {"WWW-Authenticate": f'Bearer realm="textgen", error="insufficient_scope", scope="{error}"'}
    return problem(403, f"The API key does not have the scope `{error}`.", "insufficient-scope", headers)
