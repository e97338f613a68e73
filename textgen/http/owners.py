"""Whose tasks a request is about."""

from __future__ import annotations

from textgen.settings import get_settings


def owner() -> str:
    """The owner on whose behalf the current request is made."""
    return get_settings().owner
