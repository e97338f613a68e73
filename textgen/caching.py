"""Which requests are the same, so that the text of one may answer another: before any attempt begins.

A request is cacheable where it asks for that, or is deterministic: a temperature of 0, or a seed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from textgen import engines, routes
from textgen.errors import ConfigurationError
from textgen.lifecycle import Record, Status
from textgen.messages import Delivery
from textgen.settings import Settings
from textgen.store import Store, cache
from textgen.store.answers import Claimed, Moved, Terms, Verdict
from textgen.store.cache import Place, Role, Stored

#: The scope of results that all owners share: no owner can have this name.
EVERYBODY = "*"
#: Raised when the same request no longer means the same, or results are stored in another form.
FORM = 2
#: Parameters that say nothing of the text, or stand in the digest by themselves.
_APART = ("cache", "engine", "model", "max_tokens")
#: Celery's options by which other tasks wait for the end of a message, not only of a record.
_SEQUELS = ("link", "link_error", "chain", "chord")
#: The worker's name in attempts that take a result from the cache at the submit.
WORKER = "cache"


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a delivery stands among those that ask for the same."""

    #: None: its request is not cacheable.
    place: Place | None = None
    role: Role | None = None
    #: The result, if there is one.
    stored: Stored | None = None
    #: The task as it stands, where it is to wait for the one that leads.
    waits: Record | None = None

    @property
    def leads(self) -> bool:
        """Whether its text is to be shared."""
        return self.role in (Role.LEAD, Role.LEADS)


def scope_of(owner: str, settings: Settings) -> str:
    """Whose results a submitter of `owner` shares."""
    return EVERYBODY if settings.cache_shared else owner


def place_of(record: Record, settings: Settings) -> Place | None:
    """Where the result of a task's request stands; None: it is not cacheable."""
    params = record.params
    asked = params.get("cache")
    if asked is None:
        asked = params.get("temperature") == 0 or params.get("seed") is not None
    if not asked or not settings.cache_ttl_s:
        return None
    try:
        named = params.get("engine") or settings.engine or engines.default_name()
    except ConfigurationError:
        return None
    return Place(scope_of(record.owner, settings), _digest(record, named, settings))


def _digest(record: Record, named: str, settings: Settings) -> str:
    turns = record.messages or [{"role": "user", "content": record.prompt or ""}]
    given = {name: value for name, value in record.params.items() if value is not None}
    how = {name: value for name, value in given.items() if name not in _APART}
    asked = json.dumps([FORM, named, _writers(named, given, settings), how, turns], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def _writers(named: str, given: dict[str, Any], settings: Settings) -> list[list[Any]]:
    """The engines that may write the text, each with its model and the length of its texts."""
    model, tokens = given.get("model"), given.get("max_tokens")
    try:
        entries = routes.find(named, settings).entries
    except ValueError:  # refused at the edge, where the settings are the same
        return [[named, model, tokens]]
    return [
        [
            entry.engine,
            entry.model or model or routes.model_of(entry, settings),
            tokens or routes.default_tokens(entry, settings),
        ]
        for entry in entries
    ]


def has_sequel(envelope: str) -> bool:
    """Whether other tasks wait for the task's message to be carried out: nobody else can do that for it."""
    options: dict[str, Any] = json.loads(envelope)
    return any(options.get(name) for name in _SEQUELS)


def enter(store: Store, settings: Settings, delivery: Delivery) -> Seat:
    """Find out what a delivery is to do, before it is claimed.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    place, task_id = place_of(delivery.record, settings), delivery.record.task_id
    if place is None:
        return Seat()
    can_be_adopted = not has_sequel(delivery.terms.envelope)
    found = cache.enter(store, place, task_id, int(store.lease_s * 1000), can_be_adopted)
    if found.role is not Role.FOLLOW:
        return Seat(place, found.role, found.stored)
    # What has no record, of a foreign producer or lost with Redis, cannot be parked: it runs by itself.
    return Seat(place, found.role, waits=store.get(task_id))


def leave(store: Store, seat: Seat, task_id: str) -> None:
    """Give up a lead that was taken for an attempt that does not begin."""
    if seat.place is None or not seat.leads:
        return
    known = store.get(task_id)
    # Where another message of the same task was quicker, its attempt leads.
    if known is None or known.status is not Status.PROCESSING:
        cache.leave(store, seat.place, task_id)


def answer(store: Store, record: Record, terms: Terms, token: str, stored: Stored) -> Record | None:
    """Complete a task that was just recorded by a result, without a worker; None: something came in between.

    Raises:
        StoreUnavailable: Redis did not answer. How far it came shows in the task.
    """
    claim, task_id = store.claim(record, terms, token, WORKER), record.task_id
    if claim.outcome is not Claimed.TAKEN or claim.record is None:
        return None
    if stored.text and store.append(task_id, token, 0, stored.text, tokens=0) is not Verdict.OK:
        return None
    moved = store.move(stored.on(claim.record), token=token)
    return moved.record if moved.outcome is Moved.OK else None
