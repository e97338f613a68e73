"""API keys: who may do what over HTTP, and on whose behalf.

A key is `tg_<id>_<secret>`: the id is public and finds the key, of the secret (32 random bytes) only a
SHA-256 digest is kept. That is enough for a secret of this length: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, Self, get_args

from textgen.caller import Caller, Limits
from textgen.errors import InvalidRequest, Unauthenticated
from textgen.lifecycle import iso_time, time_ms
from textgen.settings import OWNER, Settings, get_settings
from textgen.store import Store, api_keys, open_safe_store, open_store

#: `generate` submits, cancels and deletes; `read` reads and lists; `admin` is for operators.
Scope = Literal["generate", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

ID_BYTES, SECRET_BYTES = 6, 32
MAX_NAME_CHARS = 100
#: The longest life of a key in days, where one is named: a hundred years.
MAX_DAYS = 36_525
#: The id under which the key in `TEXTGEN_ADMIN_KEY` stands in the ledger.
ADMIN_ID = "admin"
_KEY = re.compile(r"tg_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
#: Compared with where there is no such key, so that this takes as long as a wrong secret.
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key: all but its secret."""

    id: str
    name: str
    owner: str
    scopes: tuple[Scope, ...]
    #: ISO 8601 in UTC.
    created_at: str
    #: The same; None: it does not expire.
    expires_at: str | None = None
    #: What it may use, where that is not what the settings say.
    limits: Limits = field(default_factory=Limits)
    #: The id of the first key in its line: those that replace it go on signing webhooks with its secret.
    line: str = ""
    #: SHA-256 of the whole key, hexadecimal.
    digest: str = ""

    def as_dict(self) -> dict[str, Any]:
        """What people are shown: no digest."""
        shown = asdict(self) | {"scopes": list(self.scopes)}
        shown["limits"] = {name: value for name, value in shown["limits"].items() if value is not None}
        del shown["digest"], shown["line"]
        return shown

    def as_text(self) -> str:
        """What is kept."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Make it from what is kept."""
        known = json.loads(text)
        return cls(**known | {"scopes": tuple(known["scopes"]), "limits": Limits(**known["limits"])})

    def has_expired(self, now_ms: float) -> bool:
        """Whether its time is up at `now_ms` of Redis' clock."""
        return self.expires_at is not None and time_ms(self.expires_at) <= now_ms

    @property
    def caller(self) -> Caller:
        """Whoever comes with the key."""
        return Caller(self.owner, self.id, self.limits, self.line)


def create(
    name: str,
    owner: str,
    scopes: Iterable[str] = ("generate", "read"),
    expires_in: timedelta | None = None,
    limits: Limits | None = None,
) -> tuple[ApiKey, str]:
    """Make a key.

    Args:
        name: For people; up to `MAX_NAME_CHARS` characters.
        owner: On whose behalf it acts.
        scopes: Of `SCOPES`.
        expires_in: Its life; None: until it is revoked.
        limits: Its own limits.

    Returns:
        What is known of the key, and the key itself, which is nowhere to be had again.

    Raises:
        InvalidRequest: One of these is not as it must be.
        ConfigurationError: There are too many keys.
        StoreUnavailable: Redis did not answer.
    """
    scopes = tuple(dict.fromkeys(scopes))
    _check(name, owner, scopes, expires_in)
    store = open_safe_store()
    now = store.now_ms()
    expires_at = None if expires_in is None else iso_time(now + expires_in.total_seconds() * 1000)
    made = ApiKey("", name, owner, scopes, iso_time(now), expires_at, limits or Limits())  # type: ignore[arg-type]
    made, secret = _with_secret(made)
    api_keys.put(store, {made.id: made.as_text()})
    return made, secret


def rotate(key_id: str, overlap: timedelta) -> tuple[ApiKey, str]:
    """Make a key like another one, which expires `overlap` from now; until then both are good.

    Where the other one expires, the new one has as long a life.

    Returns:
        As `create`.

    Raises:
        InvalidRequest: There is no such key, or `overlap` is not a time from now on.
        ConfigurationError, StoreUnavailable: As `create`.
    """
    if not timedelta(0) <= overlap <= timedelta(MAX_DAYS):
        raise InvalidRequest.of({"field": "overlap", "reason": f"must be 0 to {MAX_DAYS} days"})
    store = open_safe_store()
    old = _known(store, key_id)
    now = store.now_ms()
    end, expires_at = now + overlap.total_seconds() * 1000, None
    if old.expires_at is not None:
        end = min(end, time_ms(old.expires_at))
        expires_at = iso_time(now + time_ms(old.expires_at) - time_ms(old.created_at))
    new, secret = _with_secret(replace(old, created_at=iso_time(now), expires_at=expires_at))
    ending = replace(old, expires_at=iso_time(end))
    api_keys.put(store, {new.id: new.as_text(), old.id: ending.as_text()})
    return new, secret


def every(owner: str | None = None) -> list[ApiKey]:
    """All keys, oldest first; those of one owner if one is named.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    found = (ApiKey.from_text(text) for text in api_keys.every(open_store()))
    return sorted((key for key in found if owner in (None, key.owner)), key=lambda key: key.created_at)


def get(key_id: str) -> ApiKey:
    """What is known of a key.

    Raises:
        InvalidRequest: There is no such key.
        StoreUnavailable: Redis did not answer.
    """
    return _known(open_store(), key_id)


def revoke(key_id: str) -> None:
    """Revoke a key: from the next request on it is unknown. Tasks that it submitted go on.

    Raises:
        InvalidRequest: There is no such key.
        StoreUnavailable: Redis did not answer.
    """
    if not api_keys.drop(open_store(), key_id):
        raise _unknown()


def verify(key: str) -> ApiKey:
    """Find out whose a key is.

    Raises:
        Unauthenticated: It is none, was revoked or has expired; which of these is not told.
        StoreUnavailable: Redis did not answer.
    """
    settings = get_settings()
    admin = settings.admin_key.get_secret_value()
    if admin and hmac.compare_digest(_digest(key), _digest(admin)):
        return _admin(settings)
    parts = _KEY.fullmatch(key)
    if parts is None:
        raise Unauthenticated("the API key is unknown or has expired")
    store = open_store()
    text = api_keys.find(store, parts[1])
    known = ApiKey.from_text(text) if text else None
    is_right = hmac.compare_digest(_digest(key), known.digest if known else _NO_DIGEST)
    if known is None or not is_right or known.has_expired(store.now_ms()):
        raise Unauthenticated("the API key is unknown or has expired")
    return known


def _admin(settings: Settings) -> ApiKey:
    return ApiKey(ADMIN_ID, "TEXTGEN_ADMIN_KEY", settings.owner, SCOPES, "", line=ADMIN_ID)


def _with_secret(made: ApiKey) -> tuple[ApiKey, str]:
    key_id = secrets.token_hex(ID_BYTES)
    key = f"tg_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return replace(made, id=key_id, digest=_digest(key), line=made.line or key_id), key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _known(store: Store, key_id: str) -> ApiKey:
    text = api_keys.find(store, key_id)
    if text is None:
        raise _unknown()
    return ApiKey.from_text(text)


def _unknown() -> InvalidRequest:
    return InvalidRequest.of(
        {"field": "id", "reason": "no API key has this id; `textgen keys list` shows them"}
    )


def _check(name: str, owner: str, scopes: tuple[str, ...], expires_in: timedelta | None) -> None:
    errors = []
    if not (0 < len(name) <= MAX_NAME_CHARS and name.isprintable()):
        errors.append(("name", f"must be 1 to {MAX_NAME_CHARS} visible characters"))
    if not re.fullmatch(OWNER, owner):
        errors.append(("owner", "must be 1 to 64 letters, digits, `_`, `.`, `@` or `-`"))
    if not scopes or not set(scopes) <= set(SCOPES):
        errors.append(("scopes", f"must be some of: {', '.join(SCOPES)}"))
    if expires_in is not None and not timedelta(0) < expires_in <= timedelta(MAX_DAYS):
        errors.append(("expires_in", f"must be more than 0 and at most {MAX_DAYS} days"))
    if errors:
        raise InvalidRequest.of(*({"field": name, "reason": reason} for name, reason in errors))
