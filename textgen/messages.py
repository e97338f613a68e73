"""A task as a Celery message carries it: the whole request, and the terms it was accepted under.

The request stands in the task's keyword arguments, as a foreign producer would write it; owner,
deadline and the like stand in the header `textgen`. A message can rebuild a record that Redis lost.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from textgen import routes
from textgen.errors import InvalidRequest
from textgen.lifecycle import VERSION, Record, iso_time
from textgen.requests import GenerationRequest, parse_request
from textgen.settings import Settings
from textgen.store.answers import Terms

#: Name of the message header with the terms.
HEADER = "textgen"
#: Headers of a dead letter: why it is one, where it came from, and what became of its attempts.
REASON, ORIGIN, ATTEMPTS = "x-textgen-reason", "x-textgen-queue", "x-textgen-attempts"
#: Celery's options that belong to the task and go with it when its message is made again.
ENVELOPE = (
    "link",
    "link_error",
    "chain",
    "chord",
    "group_id",
    "group_index",
    "root_id",
    "parent_id",
    "shadow",
    "reply_to",
    "time_limit",
    "soft_time_limit",
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that was received, read."""

    record: Record
    terms: Terms
    #: Whether its producer is none of ours, so that nobody let it in.
    is_foreign: bool = False


def request_of(args: list[Any] | tuple[Any, ...], kwargs: dict[str, Any]) -> GenerationRequest:
    """The request in the arguments of `generate`: the prompt may come first and bare.

    Raises:
        InvalidRequest: With the fields that are wrong.
    """
    given = dict(kwargs)
    if len(args) > 1:
        raise InvalidRequest.of({"field": "prompt", "reason": "give the prompt first, all else by name"})
    if args:
        if "prompt" in given:
            raise InvalidRequest.of({"field": "prompt", "reason": "is given twice"})
        given["prompt"] = args[0]
    return parse_request(given)


def new_record(request: GenerationRequest, task_id: str, owner: str) -> Record:
    """The record of a request that nobody has begun."""
    messages = [message.model_dump() for message in request.messages] if request.messages else None
    return Record(
        task_id=task_id,
        prompt=request.prompt,
        messages=messages,
        params=request.params,
        metadata=request.metadata,
        owner=owner,
        priority=request.priority,
        lane=request.lane,
        webhook={"events": list(request.webhook.events)} if request.webhook else None,
    )


def webhook_of(request: GenerationRequest, signer: str) -> str:
    """The terms' `webhook` of a request: what it asks for, and whose secret signs it."""
    return json.dumps(request.webhook.model_dump() | {"signer": signer}) if request.webhook else ""


def fingerprint(record: Record) -> str:
    """A digest of what was asked for, equal for equal requests of one owner."""
    asked = [record.owner, record.prompt, record.messages, record.params, record.metadata]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


def kwargs_of(record: Record, terms: Terms) -> dict[str, Any]:
    """The arguments of `generate` that ask for what `record` asked for."""
    webhook = json.loads(terms.webhook) if terms.webhook else {}
    request = {
        "prompt": record.prompt,
        "messages": record.messages,
        **record.params,
        "priority": record.priority if record.priority != 5 else None,
        "lane": record.lane if record.lane != "interactive" else None,
        "metadata": record.metadata or None,
        "webhook": {name: webhook[name] for name in ("url", "events") if name in webhook} or None,
    }
    return {name: value for name, value in request.items() if value is not None}


def header_of(record: Record, terms: Terms) -> dict[str, Any]:
    """The header `textgen` of the message for `record`."""
    return {
        "v": VERSION,
        "owner": record.owner,
        "created_at": record.created_at,
        "deadline_ms": terms.deadline_ms,
        "ttl_ms": terms.ttl_ms,
        "queue_until_ms": terms.queue_until_ms,
        "attempt_s": terms.attempt_s,
        "replay_of": record.replay_of,
        "signer": json.loads(terms.webhook).get("signer") if terms.webhook else None,
        "tried": _told(record),
    }


def _told(record: Record) -> list[dict[str, Any]]:
    """What a message tells of engines that were tried: all of it counts, and is of one round.

    It is read before the record is, and knows of no failures.
    """
    spent = [{**one, "round": 0} for one in routes.this_round(record)]
    return [{name: value for name, value in one.items() if name != "called"} for one in spent]


def read(
    task_id: str,
    args: list[Any],
    kwargs: dict[str, Any],
    header: dict[str, Any] | None,
    envelope: str,
    settings: Settings,
    now_ms: float,
    limits_s: Sequence[float | None] = (),
    expires: str | None = None,
) -> Delivery:
    """Read a message. One of a foreign producer has no header: its time begins now.

    Args:
        task_id: The task's id.
        args: Its arguments by place.
        kwargs: Its arguments by name.
        header: The header `textgen`, if it has one.
        envelope: Celery's options that go with the task.
        settings: The settings.
        now_ms: The present, by Redis' clock.
        limits_s: Celery's limits of an attempt, as far as it has any.
        expires: Celery's time after which it must not run, ISO 8601; ours has a deadline instead.

    Raises:
        InvalidRequest: The arguments are not a request.
    """
    request = request_of(args, kwargs)
    header = header or {}
    deadline_ms = header.get("deadline_ms") or now_ms + (request.deadline_s or settings.deadline_s) * 1000
    if expires and not header:
        deadline_ms = min(deadline_ms, _expiry_ms(expires))
    record = new_record(request, task_id, header.get("owner") or settings.owner).but(
        created_at=header.get("created_at") or iso_time(now_ms),
        deadline=iso_time(deadline_ms),
        replay_of=header.get("replay_of"),
        tried=header.get("tried") or [],
    )
    ttl_ms = header.get("ttl_ms") or (request.ttl_s or settings.task_ttl_s) * 1000
    terms = Terms(
        int(ttl_ms),
        int(deadline_ms),
        fingerprint(record),
        queue_until_ms=header.get("queue_until_ms") or 0,
        attempt_s=_attempt_s(header.get("attempt_s") or request.attempt_timeout_s, *limits_s),
        envelope=envelope,
        webhook=webhook_of(request, header.get("signer") or record.owner),
    )
    return Delivery(record, terms, is_foreign=not header)


def _attempt_s(*named: float | None) -> int:
    """Seconds that an attempt may take: the least that was named, or 0 where nothing was."""
    return min((math.ceil(limit) for limit in named if limit), default=0)


def _expiry_ms(text: str) -> float:
    """When a message expires, in milliseconds since 1970; without a time zone it is UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
