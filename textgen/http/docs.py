"""The documentation to read and try out, at `/docs`: Swagger UI, all of it from this server."""

from __future__ import annotations

from importlib.resources import files

from flask import Blueprint, Response, redirect, send_from_directory
from werkzeug.exceptions import NotFound

blueprint = Blueprint("docs", __name__)

#: Asset → where its package has it.
_ASSETS = {"swagger-ui.css": "css", "swagger-ui-bundle.js": "js"}
#: What the page may do: nothing that is not from here. Swagger UI sets styles on its elements.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>textgen: HTTP API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/begin.js"></script>
</body>
</html>
"""
_BEGIN = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
});
"""
#: Seconds that a browser may keep an asset: it changes with a release only.
_CACHE_S = 3600


@blueprint.get("/")
def home() -> Response:
    """Lead whoever opens the address in a browser to the documentation."""
    return redirect("docs", 302)  # type: ignore[return-value]  # werkzeug's class, which Flask's extends


@blueprint.get("/docs")
def page() -> Response:
    """Show the API."""
    answer = Response(_PAGE, content_type="text/html; charset=utf-8")
    answer.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return answer


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """Give what the page is made of."""
    if name == "begin.js":
        answer = Response(_BEGIN, content_type="text/javascript; charset=utf-8")
    elif name in _ASSETS:
        folder = files("flask_openapi_swagger") / "templates" / "swagger" / _ASSETS[name]
        answer = send_from_directory(str(folder), name)
    else:
        raise NotFound
    answer.headers["Cache-Control"] = f"public, max-age={_CACHE_S}"
    return answer
