"""The one parser of request bodies: a JSON object in UTF-8, and nothing that only looks like one.

Flask's own parser takes the last of two equal keys, fails on deep nesting and refuses a byte-order
mark. Its results would also pass through flask-openapi, which parses a JSON string a second time.
"""

from __future__ import annotations

import json
from typing import Any

from flask import request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import (
    BadRequest,
    ClientDisconnected,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from textgen.errors import InvalidRequest
from textgen.settings import get_settings


def read_object() -> dict[str, Any]:
    """Read the body of the current request.

    NaN and infinities pass, so that validation can name the field they stand in.

    Raises:
        RequestEntityTooLarge: Over the limit, announced or not.
        UnsupportedMediaType: Compressed, or not declared as JSON.
        RequestTimeout: It did not come in time.
        BadRequest: Empty, cut short, or not JSON.
        InvalidRequest: JSON, but no object.
    """
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("The body is compressed; send it as it is.")
    body = _read()
    if not body:
        raise BadRequest("The body is empty; it must be a JSON object.")
    if not _is_declared_json():
        raise UnsupportedMediaType("The Content-Type must be application/json, in UTF-8.")
    value = _parse(body)
    if not isinstance(value, dict):
        raise InvalidRequest.of({"field": "body", "reason": "must be a JSON object"})
    return value


def _read() -> bytes:
    """Read the body as far as `MAX_CONTENT_LENGTH`, which is one byte over what is allowed.

    werkzeug refuses an announced length over it, but cuts off a chunked body there in silence.
    """
    limit = get_settings().max_body_bytes
    too_large = RequestEntityTooLarge(f"The body is over {limit} bytes.")
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise too_large from None
    except ParseException:
        raise BadRequest("The body is not chunked as its headers say.") from None
    except ClientDisconnected as exc:  # of werkzeug, for whatever goes wrong with the connection
        if isinstance(exc.__context__, TimeoutError):
            raise RequestTimeout("The body did not come in time.") from None
        raise BadRequest("The body is shorter than its headers say.") from None
    if len(body) > limit:
        raise too_large
    if len(body) < (request.content_length or 0):
        raise BadRequest("The body is shorter than its headers say.")
    return body


def _is_declared_json() -> bool:
    charset = request.mimetype_params.get("charset", "utf-8")
    return request.mimetype == "application/json" and charset.lower() in ("utf-8", "utf8")


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8.") from None
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise BadRequest(f"The body is not JSON: it goes wrong at {where}.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except ValueError:  # Python's own limit on digits, see sys.set_int_max_str_digits
        raise BadRequest("The body holds a number of too many digits.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise BadRequest("The body holds an object with the same key twice.")
    return made
