"""The store: every change of a task's status is one of these calls, and each is one script.

Each call is bounded in time and raises StoreUnavailable where Redis does not answer. Each may be
repeated: a repetition of a call that was carried out changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import redis

from textgen.errors import StoreUnavailable
from textgen.lifecycle import Record, Status, iso_time
from textgen.prices import Prices
from textgen.store import index, keys, scripts, waiting
from textgen.store.answers import (
    Claim,
    Claimed,
    Control,
    Moved,
    Submitted,
    Terms,
    Transition,
    Verdict,
    as_record,
    dump,
)
from textgen.store.connection import translated
from textgen.store.notices import NOTHING, Notice, notice_of
from textgen.store.records import Records

#: Seconds that a submitter has to publish before the janitor does: longer than a publish may take.
UNCONFIRMED_S = 30.0
#: Seconds by which the janitor's look at a lapsed lease comes after the broker's redelivery.
WATCH_GRACE_S = 3.0


class Store(Records):
    """The tasks in Redis.

    Args:
        client: A client that decodes answers to str.
        lease_s: Seconds after which an attempt that is not renewed may be taken over.
        timeout_s: Seconds after which the client gives a call up.
        prices: What tokens cost; by default nothing has a price.
    """

    def __init__(
        self, client: redis.Redis, lease_s: float, timeout_s: float = 2.0, prices: Prices | None = None
    ) -> None:
        super().__init__(client)
        self.lease_s = lease_s
        self.prices = prices or Prices({})
        #: Half of the time, so that what is carried out in it is also answered in it.
        self.patience_ms = timeout_s * 500

    def _run(self, name: str, task_id: str, *args: Any, before: Iterable[tuple[Any, ...]] = ()) -> Any:
        names = [make(task_id) for make in keys.OF_TASK]
        with translated():
            answer = scripts.run(self.client, name, names, list(args), *before)
        self._ahead_ms = float(answer[1]) - time.monotonic() * 1000
        return answer

    # Transitions

    def submit(
        self, record: Record, terms: Terms, deadline_s: float, due_s: float = 0.0, queue_s: float = 0.0
    ) -> Submitted:
        """Accept a task: outbox and index entries, then record, control fields and first event.

        Args:
            record: As it will be read, but for `created_at`, `updated_at` and `deadline`.
            terms: Its absolute times are ignored: they are reckoned from now in Redis' clock.
            deadline_s: Seconds in which the task must end.
            due_s: Seconds before which no attempt begins.
            queue_s: Seconds in which the first attempt must then begin; 0: no such limit.

        Raises:
            StoreUnavailable: Redis did not answer in time; what it carries out later has no effect.
        """
        now = int(self.now_ms())
        look_s = min(deadline_s, due_s + queue_s) if queue_s else deadline_s
        placed = record.but(created_at=iso_time(now))
        # of an id that is in use already, nothing is to be looked at later than it was
        before = (
            ("ZADD", keys.OUTBOX, "LT", now + max(UNCONFIRMED_S, due_s) * 1000, record.task_id),
            ("ZADD", keys.WATCH, "LT", now + look_s * 1000, record.task_id),
            *index.enter(placed, int(deadline_s * 1000) + terms.ttl_ms),
            *waiting.enter(record, now + due_s * 1000),
        )
        word, _, *rest = self._run(
            "submit",
            record.task_id,
            dump(record, "created_at", "updated_at", "deadline"),
            terms.fingerprint,
            int(deadline_s * 1000),
            terms.ttl_ms,
            int(due_s * 1000),
            terms.envelope,
            int(queue_s * 1000),
            terms.attempt_s,
            int(now + self.patience_ms),
            now,
            terms.webhook,
            before=before,
        )
        if word == "late":
            raise StoreUnavailable("Redis answered too late")
        if word == "created":
            deadline, text, queue_until = rest
            made = as_record(text)
            assert made is not None
            return Submitted(made, replace(terms, deadline_ms=int(deadline), queue_until_ms=int(queue_until)))
        fingerprint, text = rest
        self._withdraw(placed, as_record(text))
        return Submitted(as_record(text) or record, None, is_clash=fingerprint != terms.fingerprint)

    def _withdraw(self, placed: Record, found: Record | None) -> None:
        """Take back the index entries of a submit whose id was used before, but for the first one's."""
        first = found is not None and found.created_at == placed.created_at
        waits = found is not None and (found.status, found.attempt) == (Status.PENDING, 0)
        with suppress(StoreUnavailable):
            self.send([*([] if first else index.forget(placed)), *([] if waits else waiting.forget(placed))])

    def claim(self, record: Record, terms: Terms, token: str, worker: str) -> Claim:
        """Begin an attempt, if the task is there to be taken.

        Args:
            record: The task as the message has it, or as it was last read: its `attempt` and
                `failures` are what the caller expects, MOVED tells that they are not.
            terms: Used where Redis has lost the task.
            token: Random, and new for each delivery.
            worker: Name of the worker, for people.
        """
        taken = record.but(
            status=Status.PROCESSING, attempt=record.attempt + 1, error=None, provider_request_id=None
        )
        lease_ms = int(self.lease_s * 1000)
        now, notice = self.now_ms(), notice_of(taken)
        look = now + lease_ms + WATCH_GRACE_S * 1000
        life_ms = int(max(terms.deadline_ms - now, 0)) + terms.ttl_ms
        answer = self._run(
            "claim",
            record.task_id,
            token,
            worker,
            lease_ms,
            record.attempt,
            record.failures,
            dump(taken, "started_at", "updated_at"),
            terms.deadline_ms,
            terms.ttl_ms,
            terms.fingerprint,
            terms.envelope,
            terms.queue_until_ms,
            terms.attempt_s,
            terms.webhook,
            *(notice.arguments("started_at", "updated_at") if notice else NOTHING),
            before=(
                ("ZADD", keys.WATCH, look, record.task_id),
                *index.enter(taken, life_ms),
                *self._unannounced(notice),
            ),
        )
        outcome = Claimed(answer[0])
        if outcome is Claimed.TAKEN:
            self._leave(taken, notice)
        if outcome is Claimed.BUSY:
            return Claim(outcome, wait_s=int(answer[2]) / 1000)
        return Claim(outcome, as_record(answer[2]), rev=answer[3] if len(answer) > 3 else "0")

    def append(
        self,
        task_id: str,
        token: str,
        chunks: int,
        text: str,
        tokens: int = 1,
        prompt_tokens: int | None = None,
    ) -> Verdict:
        """Add text of an attempt to the event log, and renew its lease.

        Args:
            chunks: How many chunks the attempt has added before this one.
            text: Not empty.
            tokens: Tokens that the text stands for.
            prompt_tokens: Tokens of the prompt, where they are known by now.
        """
        known = "" if prompt_tokens is None else prompt_tokens
        lease_ms = int(self.lease_s * 1000)
        return Verdict(self._run("append", task_id, token, lease_ms, chunks, text, tokens, known)[0])

    def renew(self, task_id: str, token: str) -> Verdict:
        """Renew the lease of an attempt that has nothing to add at the moment."""
        lease_ms = int(self.lease_s * 1000)
        look = self.now_ms() + lease_ms + WATCH_GRACE_S * 1000
        before = (("ZADD", keys.WATCH, "XX", look, task_id),)
        return Verdict(self._run("append", task_id, token, lease_ms, 0, "", 0, "", before=before)[0])

    def move(
        self,
        record: Record,
        *,
        token: str | None = None,
        rev: str | None = None,
        lapsed: bool = False,
        due_s: float = 0.0,
        reason: str = "",
        is_dead: bool = False,
        asked: str | None = None,
    ) -> Transition:
        """Carry out a transition: `record.status` and the rest of `record` are what is to hold.

        Args:
            record: The record after the transition, but for `updated_at` and `finished_at`; where it
                has no `usage`, the attempt used the tokens that were appended.
            token: The attempt's token, when the attempt itself moves the task.
            rev: The revision that was read, when somebody else does.
            lapsed: With `rev`: only while nobody renews the lease.
            due_s: Seconds before which no further attempt begins (PENDING).
            reason: Why the attempt's text is void (PENDING).
            is_dead: Whether the message of the task belongs among the dead letters (FAILED).
            asked: The model that was asked for, where the record has the name that the provider gave it.

        Raises:
            ValueError: Its usage is not counted in whole tokens, which no repetition mends.
        """
        if record.usage and not record.usage.is_counted:
            raise ValueError("usage is not counted in whole tokens")
        guard, value = ("token", token) if token is not None else ("lapsed" if lapsed else "rev", rev)
        stamps = "finished_at updated_at" if record.status.is_terminal else "updated_at"
        now, notice = self.now_ms(), notice_of(record)
        before = index.change(record) + self._unannounced(notice)
        if record.status is Status.PENDING:
            before.append(("ZADD", keys.OUTBOX, now + (due_s + UNCONFIRMED_S) * 1000, record.task_id))
            before += waiting.enter(record, now + due_s * 1000)
        else:
            before.append(("ZADD", keys.UNSETTLED, "XX", 0, record.task_id))
        if is_dead:
            before.append(("ZADD", keys.DEADBOX, now, record.task_id))
        used, price, without = record.usage, self.prices.of_record(record, asked), stamps.split()
        if record.status.is_terminal:
            without.append("usage")
        word, _, text = self._run(
            "transition",
            record.task_id,
            guard,
            value,
            record.status.value,
            dump(record.but(usage=None), *without),
            stamps,
            record.failures,
            int(due_s * 1000),
            reason,
            used.prompt_tokens if used else "",
            used.completion_tokens if used else "",
            price.prompt_nano if price else "",
            price.completion_nano if price else "",
            *(notice.arguments(*without) if notice else NOTHING),
            used.cached_tokens if used else 0,
            used.reasoning_tokens if used else 0,
            price.cached_nano if price else "",
            int(record.cached),
            before=before,
        )
        if word == Moved.OK:
            self._leave(record, notice)
        return Transition(Moved(word), as_record(text))

    def _unannounced(self, notice: Notice | None) -> list[tuple[Any, ...]]:
        """The entry that stands for a delivery in case the process dies right after making it due."""
        if notice is None:
            return []
        return [("ZADD", keys.WEBHOOKS, "NX", self.now_ms() + UNCONFIRMED_S * 1000, notice.id)]

    def _leave(self, record: Record, notice: Notice | None) -> None:
        """Take a moved task out of where it was, and have its webhook told at once.

        If Redis is away just now, readers pass it over, and the delivery comes due by itself.
        """
        told = [("ZADD", keys.WEBHOOKS, "LT", self.now_ms(), notice.id)] if notice else []
        over = [("ZREM", name, record.task_id) for name in (keys.WATCH, keys.OUTBOX)]
        if not record.status.is_terminal:
            over = []
        with suppress(StoreUnavailable):
            self.send([*index.leave(record), *waiting.leave(record, self.now_ms()), *told, *over])

    def hold(self, task_id: str, for_s: float) -> bool:
        """Take note that a task which waits is parked; False if there is something to be settled first."""
        return bool(self._run("hold", task_id, int(for_s * 1000))[0] == "held")

    def ask_cancel(self, task_id: str) -> tuple[bool, Record | None, Control | None]:
        """Stop everything about a task but a cancel.

        Returns:
            Whether the task is now only waiting for its CANCELLED record, the record as it stands
            (None where Redis has none), and its control fields if it was not terminal.
        """
        word, _, *rest = self._run("cancel", task_id)
        record = as_record(rest[0]) if rest else None
        return word == "flagged", record, self.control(task_id) if word == "flagged" else None

    def refuse(self, task_id: str) -> bool:
        """Take back a submit that was not confirmed; False if it has begun to run all the same."""
        record = self.get(task_id)
        refused = self._run("refuse", task_id)[0] == "refused"
        if refused:
            self.discard(task_id)
            if record:
                self._forget(record)
        return refused

    def delete(self, record: Record) -> str:
        """Remove a terminal task: record, events, index entries, and all that says what it was.

        Returns:
            `deleted`, `absent`, or `active` where it is not terminal.
        """
        word = str(self._run("delete", record.task_id)[0])
        if word == "deleted":
            self._forget(record)
        return word

    def _forget(self, record: Record) -> None:
        self.send([*index.forget(record), *waiting.forget(record)])

    def bury(self, record: Record, ttl_ms: int) -> bool:
        """Write a FAILED record for an id that has no task; False if it has one."""
        stamps = ("created_at", "updated_at", "finished_at", "deadline")
        word, now = self._run("bury", record.task_id, dump(record, *stamps), ttl_ms)
        if word == "buried":
            self.send(index.enter(record.but(created_at=iso_time(int(now))), ttl_ms))
        return bool(word == "buried")
