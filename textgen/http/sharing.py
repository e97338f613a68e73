"""What browsers are told: to guess nothing, to frame nothing, and which other sites may call (CORS)."""

from __future__ import annotations

from flask import Flask, Response
from flask_cors import CORS

from textgen.settings import get_settings

#: On every answer; a view may have set one of its own.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: What pages of other sites may send, and what they may see of an answer besides its body.
SENT = [
    "Accept",
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Prefer",
    "X-Request-Id",
]
SEEN = [
    "Idempotent-Replayed",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-Id",
]
#: Seconds that a browser may remember what it was allowed.
MAX_AGE_S = 600


def install(app: Flask) -> None:
    """Give every answer its headers; let in the origins of `TEXTGEN_CORS_ORIGINS`."""
    origins = get_settings().origins
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = bool(origins)
    if origins:
        CORS(
            app,
            origins=list(origins),
            methods=["GET", "POST", "DELETE"],
            allow_headers=SENT,
            expose_headers=SEEN,
            max_age=MAX_AGE_S,
        )
    shared = "cross-origin" if origins else "same-origin"
    headers = HEADERS | {"Cross-Origin-Resource-Policy": shared}

    def finish(response: Response) -> Response:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    app.after_request(finish)
