"""Settings that are tables: a JSON object in the variable itself, or the path of a file that holds one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from textgen.errors import ConfigurationError

T = TypeVar("T")


def read(text: str, adapter: TypeAdapter[T], variable: str) -> T:
    """Read a table.

    Args:
        text: What the variable is set to; empty is an empty table.
        adapter: What the table should be.
        variable: Its name, for people.

    Raises:
        ConfigurationError: It is neither JSON nor a file, or no such table.
    """
    text = text.strip()
    try:
        if text and not text.startswith("{"):
            text = Path(text).read_text()
        table: Any = json.loads(text or "{}")
        return adapter.validate_python(table)
    except OSError as exc:
        raise ConfigurationError(f"{variable}: {exc.strerror}") from exc
    except ValidationError as exc:
        wrong = exc.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in wrong["loc"])
        raise ConfigurationError(
            f"{variable}: {where}: {wrong['msg'].removeprefix('Value error, ')}"
        ) from None  # pydantic's own error shows what it was given, keys too
    except ValueError:
        raise ConfigurationError(f"{variable} is neither a JSON object nor the path of one") from None
