"""Submits that may be repeated: a request sent again under its key leads to the same task.

The key is bound to a task id before the task is recorded, so that whoever repeats the request after
a crash finds out what became of it, and goes on from there.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import replace

from textgen import messages
from textgen.caller import Caller
from textgen.errors import (
    BrokerUnavailable,
    DuplicateTask,
    IdempotencyKeyReused,
    InvalidRequest,
    LimitExceeded,
    StoreUnavailable,
    SubmitInFlight,
)
from textgen.lifecycle import Record, Status, iso_time, new_task_id
from textgen.requests import GenerationRequest
from textgen.settings import get_settings
from textgen.store import Store, idempotency, open_safe_store
from textgen.store.answers import Submitted
from textgen.store.idempotency import Entry

#: Characters that a key may have.
MAX_KEY_CHARS = 255


def submit(request: GenerationRequest, key: str, caller: Caller | None = None) -> tuple[Record, bool]:
    """Submit a request once, however often it is sent with this key in a day.

    Args:
        request: What to generate.
        key: Chosen by the submitter, new for each request; up to 255 visible ASCII characters.
        caller: On whose behalf; by default `TEXTGEN_OWNER`. Owners' idempotency keys are apart.

    Returns:
        The record as it was accepted, and whether that was in an earlier call.

    Raises:
        InvalidRequest: The key is none.
        IdempotencyKeyReused: The key came with another request before.
        SubmitInFlight: The first request with this key is not decided yet.
        StoreUnavailable, BrokerUnavailable: Nothing was queued; the key is free.
    """
    if reason := reason_against(key):
        raise InvalidRequest.of({"field": "idempotency_key", "reason": reason})
    caller = caller or Caller(get_settings().owner)
    owner = caller.owner
    store, mine = open_safe_store(), Entry(new_task_id(), _fingerprint(request))
    while True:
        entry = idempotency.claim(store, owner, key, mine) or mine
        if entry.fingerprint != mine.fingerprint:
            raise IdempotencyKeyReused("the idempotency key was used before, for another request")
        if entry.created_at:
            return _as_accepted(request, entry, owner), True
        control = None if entry is mine else store.control(entry.task_id)
        if control is None:  # nobody came so far as to record the task
            try:
                submitted = _accept(store, request, key, caller, entry)
            except DuplicateTask:  # somebody else did at the same moment, and was refused
                continue
            if submitted.terms:
                known = _accepted(entry, submitted.terms.deadline_ms, request)
                # The task is accepted: without this, whoever repeats the request settles it.
                with suppress(StoreUnavailable):
                    idempotency.settle(store, owner, key, known)
                if submitted.record.status is Status.PENDING:
                    return submitted.record, False
                return _as_accepted(request, known, owner), False  # completed at once: see `textgen.caching`
        elif control.status == Status.CANCELLED and store.get(entry.task_id) is None:
            idempotency.release(store, owner, key, entry)  # a refused submit left its tombstone
            mine = replace(mine, task_id=new_task_id())
        elif control.is_untouched and store.is_scheduled(entry.task_id):
            raise SubmitInFlight("the first request with this idempotency key is still being accepted")
        else:
            known = _accepted(entry, control.deadline_ms, request)
            idempotency.settle(store, owner, key, known)
            return _as_accepted(request, known, owner), True


def reason_against(key: str) -> str | None:
    """Say what keeps `key` from being one, or None if nothing does."""
    if 0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable():
        return None
    return f"must be 1 to {MAX_KEY_CHARS} visible ASCII characters"


def _fingerprint(request: GenerationRequest) -> str:
    asked = json.dumps(request.as_kwargs(), sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:32]


def _accept(store: Store, request: GenerationRequest, key: str, caller: Caller, entry: Entry) -> Submitted:
    from textgen.tasks import generate

    try:
        return generate.accept(request, entry.task_id, {"caller": caller})
    except (BrokerUnavailable, InvalidRequest, LimitExceeded):
        idempotency.release(store, caller.owner, key, entry)
        raise


def _accepted(entry: Entry, deadline_ms: int, request: GenerationRequest) -> Entry:
    """The entry of a task that was accepted, and when."""
    created_ms = deadline_ms - (request.deadline_s or get_settings().deadline_s) * 1000
    return replace(entry, created_at=iso_time(created_ms), deadline=iso_time(deadline_ms))


def _as_accepted(request: GenerationRequest, entry: Entry, owner: str) -> Record:
    """The record as the first request was answered it."""
    return messages.new_record(request, entry.task_id, owner).but(
        created_at=entry.created_at, updated_at=entry.created_at, deadline=entry.deadline
    )
