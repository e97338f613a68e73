"""The client of broker and store, as the commands use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textgen import client
from textgen.lifecycle import Record
from textgen.requests import parse_request


class DirectClient:
    """`textgen.client`, with requests validated here."""

    get = staticmethod(client.get)
    stream = staticmethod(client.stream)
    cancel = staticmethod(client.cancel)
    recent = staticmethod(client.recent)
    overview = staticmethod(client.overview)
    list_page = staticmethod(client.list_page)
    delete = staticmethod(client.delete)
    clear_cache = staticmethod(client.clear_cache)

    def submit(self, request: Mapping[str, Any], /, *, idempotency_key: str | None = None) -> Record:
        """Validate the fields of a request and submit it."""
        return client.submit(parse_request(dict(request)), idempotency_key=idempotency_key)
