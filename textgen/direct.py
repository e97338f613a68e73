"""What the outside can ask of the system: submit, read, wait, stream, cancel, look over.

These functions speak to broker and store directly. They are called as those of `textgen.client`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from textgen import broker, caching, catalogue, idempotency, outcomes, settlement
from textgen.caller import Caller
from textgen.catalogue import Entry
from textgen.engine_states import EngineState, engine_states
from textgen.errors import (
    BrokerUnavailable,
    ConfigurationError,
    InvalidRequest,
    StoreUnavailable,
    TaskFinished,
    TaskUnfinished,
    UnknownTask,
)
from textgen.lifecycle import Record, Status, is_task_id, new_task_id
from textgen.requests import GenerationRequest, parse_request
from textgen.selection import EVERY, PAGE, Page, Selection, walk
from textgen.settings import get_settings
from textgen.store import (
    cache,
    deliveries,
    graveyard,
    ledger,
    listing,
    open_safe_store,
    open_store,
    schedules,
    waiting,
)
from textgen.store.answers import Moved
from textgen.store.following import POSITION, Following
from textgen.store.graveyard import DeadLetter
from textgen.store.ledger import Used
from textgen.store.subscriber import wait_until_terminal
from textgen.store.waiting import Outlook

#: Days for which the ledger is kept.
LEDGER_DAYS = 400
#: How many of the newest tasks `overview` counts by status.
COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Overview:
    """The system at a glance."""

    #: Status → how many of the newest `COUNTED` tasks are in it.
    statuses: dict[str, int]
    #: Queue → messages ready in it.
    queues: dict[str, int]
    #: Names of the workers that take work.
    workers: list[str]
    #: What the janitor did (`taken over`, `published again`, `expired` …) → how often, since ever.
    janitor: dict[str, int]
    #: Engines that are remote or limited, and have been used or limited lately.
    engines: list[EngineState] = field(default_factory=list)


def submit(
    request: GenerationRequest, *, caller: Caller | None = None, idempotency_key: str | None = None
) -> Record:
    """Submit a request; returns once the broker has confirmed it.

    Args:
        request: What to generate.
        caller: On whose behalf; by default `TEXTGEN_OWNER`.
        idempotency_key: See `textgen.idempotency.submit`, which tells besides whether it was new.

    Raises:
        IdempotencyKeyReused, SubmitInFlight: See there.
        StoreUnavailable: Redis did not answer; nothing was queued.
        BrokerUnavailable: The broker did not confirm; nothing will become visible.
    """
    from textgen.tasks import generate

    if idempotency_key is not None:
        return idempotency.submit(request, idempotency_key, caller)[0]
    return generate.accept(request, new_task_id(), {"caller": caller} if caller else {}).record


def _known(task_id: str) -> str:
    if not is_task_id(task_id):
        raise UnknownTask("no task has such an id: ids are lower-case UUIDs")
    return task_id


def get(task_id: str, owner: str | None = None) -> Record:
    """Read a task.

    Args:
        task_id: Which task.
        owner: Whose it must be; None: anybody's. So in all calls here that take a task's id.

    Raises:
        UnknownTask: There is none with this id, or it is somebody else's.
        StoreUnavailable: Redis did not answer.
    """
    record = open_store().get(_known(task_id))
    if record is None or owner not in (None, record.owner):
        raise UnknownTask(f"task {task_id} does not exist, or its record has expired")
    return record


def wait(task_id: str, timeout_s: float, owner: str | None = None) -> Record:
    """Wait until a task is terminal, `timeout_s` seconds at the most.

    Returns:
        The record as it then stands, terminal or not.

    Raises:
        UnknownTask: There is none with this id, or it is somebody else's.
        StoreUnavailable: Redis did not answer.
    """
    record = wait_until_terminal(open_store(), _known(task_id), timeout_s, owner=owner)
    assert record is not None
    return record


def is_position(text: str) -> bool:
    """Whether `text` is the id of an event, so that `stream` can begin behind it."""
    return POSITION.fullmatch(text) is not None


def stream(task_id: str, after: str | None = None, owner: str | None = None) -> Following:
    """Follow a task's events from the beginning, or from behind event `after`, to its end.

    Yields:
        Events, and None about every 15 s while nothing happens.

    Raises:
        InvalidRequest: `after` is not an event's id.
        UnknownTask: There is none with this id, or it is somebody else's.
        StoreUnavailable: Redis did not answer.
    """
    return Following(open_store(), _known(task_id), after, owner)


def cancel(task_id: str, owner: str | None = None) -> Record:
    """Cancel a task that is waiting or running; text and usage so far are kept.

    Returns:
        The CANCELLED record, also when it had been cancelled before.

    Raises:
        UnknownTask: There is none with this id.
        TaskFinished: It had completed or failed before.
        StoreUnavailable: Redis did not answer.
    """
    from textgen.tasks import generate

    if owner is not None:
        get(task_id, owner)
    moved = outcomes.cancel(open_store(), _known(task_id))
    settlement.settle_now(open_store(), get_settings(), task_id, generate.send)
    if moved.outcome is Moved.ABSENT or moved.record is None:
        raise UnknownTask(f"task {task_id} does not exist, or its record has expired")
    if moved.record.status is not Status.CANCELLED:
        raise TaskFinished(f"task {task_id} is {moved.record.status.value} already")
    return moved.record


def delete(task_id: str, owner: str | None = None) -> None:
    """Delete a task that has ended: record, events, index entries and what is listed of its dead letter.

    Args:
        task_id: Which task.
        owner: Whose it must be.

    Raises:
        UnknownTask: There is none with this id, or it is somebody else's.
        TaskUnfinished: It waits or runs.
        StoreUnavailable: Redis did not answer; the call may be repeated.
    """
    from textgen.tasks import generate

    record, store = get(task_id, owner), open_store()
    if not record.status.is_terminal:
        raise TaskUnfinished(f"task {task_id} is {record.status.value}")
    with suppress(BrokerUnavailable):  # to publish what waits behind it: the outbox will
        settlement.sweep(store, get_settings(), task_id, generate.send)  # what it used goes with it
    graveyard.exhume(store, task_id)
    store.delete(record)


def list_page(
    selection: Selection = EVERY, limit: int = PAGE, cursor: str | None = None, owner: str | None = None
) -> Page:
    """A page of an owner's tasks, newest first.

    Args:
        selection: Which of them.
        limit: Records that it may have, 1 to `MAX_PAGE`.
        cursor: `next_cursor` of the page before.
        owner: Whose tasks; by default `TEXTGEN_OWNER`.

    Raises:
        InvalidRequest: `cursor` is not one, or `TEXTGEN_INDEXED_METADATA` does not name a key.
        StoreUnavailable: Redis did not answer.
    """
    settings = get_settings()
    named = ", ".join(settings.metadata_keys) or "none"
    errors = [
        {"field": f"metadata.{key}", "reason": f"tasks are not listed by it, only by these keys: {named}"}
        for key in selection.metadata
        if key not in settings.metadata_keys
    ]
    if errors:
        raise InvalidRequest.of(*errors)
    return listing.read_page(open_store(), owner or settings.owner, selection, limit, cursor)


def webhook_deliveries(task_id: str, owner: str | None = None) -> list[dict[str, Any]]:
    """The tries of a task's webhook deliveries, oldest first; none for a task without a webhook.

    Raises:
        UnknownTask: There is none with this id.
        StoreUnavailable: Redis did not answer.
    """
    return deliveries.log(open_store(), get(task_id, owner).task_id)


def recent(limit: int = 50) -> list[Record]:
    """The newest tasks of all owners, newest first."""
    store = open_store()
    return list(walk(lambda size, cursor: listing.read_page(store, None, EVERY, size, cursor), limit))


def outlooks(records: Iterable[Record]) -> dict[str, Outlook]:
    """What those of `records` that wait may expect, by task id: estimates.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    return waiting.outlooks(open_store(), records)


def overview() -> Overview:
    """Count tasks, queues and what the janitor did, name the workers, and say how engines are doing.

    Raises:
        StoreUnavailable, BrokerUnavailable: One of them did not answer.
    """
    from textgen.celery import app

    store = open_store()
    return Overview(
        statuses=store.count_statuses(COUNTED),
        queues=broker.depths(app, get_settings()),
        workers=schedules.workers(store),
        janitor=schedules.counts(store),
        engines=[one for one in engine_states() if one.account.counts],
    )


def engines() -> list[Entry]:
    """The engines that a request may name, as the settings of this process make them."""
    return catalogue.entries(get_settings())


def health() -> dict[str, str | None]:
    """Say of broker, store and workers what is wrong with each, or None; bounded in time."""
    from textgen.celery import app

    found: dict[str, str | None] = {"broker": None, "store": None, "worker": None}
    try:
        broker.reach(app, get_settings())
    except (BrokerUnavailable, ConfigurationError) as exc:
        found["broker"] = str(exc)
    try:
        if not schedules.workers(open_safe_store()):
            found["worker"] = "no worker takes work; start one with `celery -A textgen worker`"
    except (StoreUnavailable, ConfigurationError) as exc:
        found["store"] = str(exc)
        found["worker"] = "not known without the store"
    return found


def usage(first: date, last: date, owner: str | None = None) -> list[Used]:
    """What each key of an owner has used, day by day, of tasks that have ended.

    Args:
        first: The first day, of UTC.
        last: The last day.
        owner: Whose keys; by default `TEXTGEN_OWNER`.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    first = max(first, today() - timedelta(days=LEDGER_DAYS))
    last = min(last, today())
    days = [(first + timedelta(days=day)).isoformat() for day in range((last - first).days + 1)]
    return ledger.used(open_store(), owner or get_settings().owner, days)


def today() -> date:
    """The day in UTC that Redis' clock shows."""
    return datetime.fromtimestamp(open_store().now_ms() / 1000, UTC).date()


def clear_cache(owner: str | None = None) -> int:
    """Delete the cached results of an owner, or of all where they share them; returns how many there were.

    Args:
        owner: Whose; by default `TEXTGEN_OWNER`.

    Raises:
        StoreUnavailable: Redis did not answer; the call may be repeated.
    """
    settings = get_settings()
    return cache.clear(open_store(), caching.scope_of(owner or settings.owner, settings))


def dead_letters(limit: int = 50) -> list[DeadLetter]:
    """The newest dead letters, newest first."""
    return graveyard.newest(open_store(), limit)


def dead_letter(letter_id: str) -> DeadLetter:
    """One dead letter.

    Raises:
        UnknownTask: There is none of this id.
    """
    letter = graveyard.find(open_store(), _known(letter_id))
    if letter is None:
        raise UnknownTask(f"there is no dead letter {letter_id}")
    return letter


def replay(letter_id: str) -> Record:
    """Submit what a dead letter asked for as a new task, whose `replay_of` names the letter.

    Raises:
        UnknownTask: There is none of this id.
        InvalidRequest: Its message held no valid request, or none that is valid today.
        StoreUnavailable, BrokerUnavailable: Nothing was queued.
    """
    from textgen.tasks import generate

    letter = dead_letter(letter_id)
    if letter.request is None:
        reason = "its message held no valid request, so there is nothing to replay"
        raise InvalidRequest.of({"field": "id", "reason": reason})
    options = {"replay_of": letter.id, "owner": letter.owner}
    return generate.accept(parse_request(letter.request), new_task_id(), options).record


def purge_dead_letters() -> int:
    """Delete all dead letters; returns how many the index had.

    Raises:
        StoreUnavailable, BrokerUnavailable: One of them did not answer.
    """
    from textgen.celery import app

    broker.purge_dead(app, get_settings())
    return graveyard.clear(open_store())
