"""The HTTP API: Flask blueprints, one file per resource: parse, call `textgen.client` once, answer."""

from textgen.http.app import create_app

__all__ = ["create_app"]
