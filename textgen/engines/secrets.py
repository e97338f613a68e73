"""What nothing that is kept of an answer may repeat: a server's key, and what its headers hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from textgen.servers import Server

#: Characters in a row that are no chance, and those of the shortest secret.
PART_CHARS, SHORTEST_CHARS = 8, 4


@dataclass(frozen=True, slots=True)
class Secrets:
    """Those of one server."""

    #: In small letters.
    values: tuple[str, ...]

    @classmethod
    def of(cls, server: Server) -> Secrets:
        """What is sent to `server` and to nobody else."""
        values = [value.get_secret_value().lower() for value in (server.api_key, *server.headers.values())]
        return cls(tuple(value for value in values if len(value) >= SHORTEST_CHARS))

    def are_in(self, told: str) -> bool:
        """Whether `told` holds one, or a part of one."""
        told = told.lower()
        return any(part in told for value in self.values for part in _parts(value))


def _parts(value: str) -> Iterator[str]:
    last = max(len(value) - PART_CHARS, 0)
    return (value[start : start + PART_CHARS] for start in range(last + 1))
