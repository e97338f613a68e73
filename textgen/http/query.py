"""Query strings hold each parameter once: of several, all but the first would be dropped in silence."""

from __future__ import annotations

from flask import Flask, request

from textgen.errors import InvalidRequest


def install(app: Flask) -> None:
    """Make `app` refuse a parameter that is given more than once."""
    app.before_request(_refuse_repeated)


def _refuse_repeated() -> None:
    if request.endpoint is None:
        return  # an unknown route, or a method that it does not have
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        raise InvalidRequest.of(*({"field": name, "reason": "is given more than once"} for name in repeated))
