"""What nothing that is kept of an answer may repeat: a server's key, and what its headers hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from textgen.servers import Server

#: Characters in a row that are no chance.
PART_CHARS = 8


@dataclass(frozen=True, slots=True)
class Secrets:
    """Those of one server."""

    values: tuple[str, ...]

    @classmethod
    def of(cls, server: Server) -> Secrets:
        """What is sent to `server` and to nobody else."""
        return cls(tuple(value.get_secret_value() for value in (server.api_key, *server.headers.values())))

    def are_in(self, told: str) -> bool:
        """Whether `told` holds one, or a part of one."""
        told = told.lower()
        return any(part in told for value in self.values for part in _parts(value.lower()))


def _parts(value: str) -> Iterator[str]:
    last = max(len(value) - PART_CHARS, 0)
    return (value[start : start + PART_CHARS] for start in range(last + 1) if value)
