"""How engines are doing, as all workers know it together: limits that fill up, pauses, circuits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from textgen import engines
from textgen.gate import candidate
from textgen.settings import get_settings
from textgen.store import open_store, permits
from textgen.store.permits import Account, Candidate


@dataclass(frozen=True, slots=True)
class EngineState:
    """An engine that has limits or a circuit."""

    name: str
    #: Calls and tokens allowed in any window, as set here; 0: no limit.
    requests_limit: int
    tokens_limit: int
    window_s: float
    account: Account

    def as_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        limits = {name: getattr(self, name) for name in ("requests_limit", "tokens_limit", "window_s")}
        return {"engine": self.name, **asdict(self.account), **limits}

    def words(self) -> str:
        """In a line, for people."""
        known, parts = self.account, []
        if known.circuit != "closed":
            parts.append(f"circuit {known.circuit}" + (f" {known.retry_s:.0f} s" if known.retry_s else ""))
        elif known.failures:
            parts.append(f"{known.failures} failures in a row")
        if known.paused_s:
            parts.append(f"paused {known.paused_s:.0f} s")
        for kind in ("requests", "tokens"):
            limit, used = getattr(self, f"{kind}_limit"), getattr(known, kind)
            if limit:
                parts.append(f"{used}/{limit} {kind} in {self.window_s:g} s")
            if kind in known.told:
                parts.append(f"{known.told[kind]} {kind} left")
        if known.waiting:
            parts.append(f"{known.waiting} wait for room")
        return ", ".join(parts) or "circuit closed"


def engine_states() -> list[EngineState]:
    """The state of each engine that is remote or limited here, by name.

    Raises:
        StoreUnavailable: Redis did not answer.
        ConfigurationError: `TEXTGEN_ENGINE_LIMITS` is wrong.
    """
    settings = get_settings()
    found = {name: candidate(name, settings) for name in engines.names()}
    return [_state(name, one, settings.breaker_reset_s) for name, one in found.items() if one.account]


def _state(name: str, asked: Candidate, reset_s: float) -> EngineState:
    account = permits.look(open_store(), asked.account, reset_s)
    return EngineState(name, asked.requests, asked.tokens, asked.window_ms / 1000, account)
