"""Puts the web app together; every decision is made in the modules named here."""

from __future__ import annotations

from types import TracebackType

import structlog
from flask_openapi.models.info import Info
from flask_openapi.openapi import OpenAPI

from textgen import __version__, logs
from textgen.http import (
    access,
    cache,
    correlation,
    dead_letters,
    docs,
    documentation,
    engines,
    events,
    health,
    problems,
    query,
    rates,
    sharing,
    tasks,
    usage,
    webhooks,
)
from textgen.http import listing as _listing  # noqa: F401 - adds to the routes of tasks
from textgen.http.access import BEARER
from textgen.http.schemas import Problem
from textgen.settings import get_settings

log = structlog.get_logger(__name__)


class App(OpenAPI):
    """The Flask app; it logs where an unforeseen error came from, but not what it says."""

    def log_exception(
        self, exc_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None]
    ) -> None:
        if exc_info[1] is not None:
            log.error("http.failed", error=logs.outline(exc_info[1]))


def create_app() -> App:
    """Make the web app from the settings. Nothing is connected to before the first request."""
    logs.configure()
    app = App(
        __name__,
        info=Info(title="textgen", version=__version__, description=documentation.DESCRIPTION),
        security_schemes={"bearer": BEARER},
        doc_ui=False,
        static_folder=None,
        validation_error_model=Problem,
        validation_error_callback=problems.refuse_parameters,
    )
    app.openapi_version = "3.1.0"
    # One byte over, so that `body` can tell what was cut off from what fits.
    app.config["MAX_CONTENT_LENGTH"] = get_settings().max_body_bytes + 1
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of Flask's own JSON provider
    app.url_map.merge_slashes = False  # `//v1/tasks` is an unknown route, not a redirect
    correlation.install(app)
    sharing.install(app)
    problems.install(app)
    access.install(app)
    query.install(app)
    rates.install(app)
    for resource in (tasks, events, webhooks, usage, engines, cache, dead_letters, health, documentation):
        app.register_api(resource.blueprint)
    app.register_blueprint(docs.blueprint)
    return app
