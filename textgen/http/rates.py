"""The headers that tell a submitter how much of its rates is left, with 202 and 429 alike.

`RateLimit-Policy` and `RateLimit` as structured fields (draft-ietf-httpapi-ratelimit-headers-10): quota
and window of each limit, then what remains of it and the seconds until all of it is there again.
"""

from __future__ import annotations

import math

from flask import Flask, Response

from textgen import admission

#: Seconds of the window of every rate.
WINDOW_S = 60


def install(app: Flask) -> None:
    """Make `app` show the rates that a submit was measured by."""
    app.before_request(_begin)
    app.after_request(_show)


def _begin() -> None:
    admission.rates.set(())


def _show(response: Response) -> Response:
    rates = admission.rates.get()
    if rates:
        quotas = [f'"{rate.name}";q={rate.limit};w={WINDOW_S}' for rate in rates]
        left = [f'"{rate.name}";r={rate.remaining};t={math.ceil(rate.reset_s)}' for rate in rates]
        response.headers["RateLimit-Policy"] = ", ".join(quotas)
        response.headers["RateLimit"] = ", ".join(left)
    return response
