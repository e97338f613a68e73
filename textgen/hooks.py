"""The custom state hooks of the task: PENDING at every submit, before anything is published.

`GenerateTask.apply_async` is the one way in: `.delay()`, signatures, groups, chains and
`client.submit` all end there.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from celery import Task
from celery.result import AsyncResult
from kombu.utils import json as kombu_json

from textgen import broker, caching, lanes, messages, outcomes, queues, settlement
from textgen.admission import admit
from textgen.caller import Caller
from textgen.errors import BrokerUnavailable, DuplicateTask, InvalidRequest, StoreUnavailable
from textgen.groups import Groups
from textgen.lifecycle import Record, is_task_id, new_task_id
from textgen.options import due_s, read_envelope, with_ids, with_options
from textgen.received import HIDDEN
from textgen.requests import GenerationRequest
from textgen.settings import get_settings
from textgen.store import cache, meter, open_safe_store, open_store
from textgen.store.answers import Submitted, Terms
from textgen.store.cache import Stored
from textgen.webhooks import guard
from textgen.withdrawals import Withdrawals

log = structlog.get_logger(__name__)


def _take_back(task_id: str) -> bool:
    """Take back a submit that was not confirmed; False if it has begun to run all the same."""
    store = open_store()
    is_refused = store.refuse(task_id)
    if is_refused:
        for let_in in settlement.settle(store, get_settings(), task_id):
            store.schedule(let_in, 0.0)  # not published here: the broker has just failed
    return is_refused


def _undo(task_id: str) -> None:
    """Take back a submit, or cancel it where it has begun to run."""
    if not _take_back(task_id):
        outcomes.cancel(open_store(), task_id)


_withdrawals = Withdrawals(_undo)


def _give_up(task_id: str) -> None:
    """Undo the submit of a member of a group that broke off, now or as soon as the store is there."""
    try:
        _undo(task_id)
    except StoreUnavailable:
        _withdrawals.add(task_id)


_groups = Groups(_give_up)


class GenerateTask(Task):
    """A task whose every submit is recorded before it is published."""

    Request = "textgen.received:GenerateRequest"
    abstract = True
    ignore_result = False
    #: The result's repr in logs and events would be the text: this shows none of it.
    resultrepr_maxsize = 0
    typing = False

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Submit a task.

        Takes what Celery's `Task.apply_async` takes. `countdown` and `eta` become a wait in the
        delay queues or the outbox, `expires` a deadline, `queue` must be a lane's. Of a group whose
        submit breaks off at a member, those before it are taken back, or cancelled.

        Raises:
            InvalidRequest: The arguments are not a request, or the id is not a lower-case UUID4.
            DuplicateTask: The id was used before, for another request or for one that was not accepted.
            LimitExceeded, QueueFull, BudgetExhausted: A limit is reached; nothing was queued.
            StoreUnavailable: Redis did not answer; nothing was queued.
            BrokerUnavailable: The broker did not confirm; nothing of this will become visible.
            ConfigurationError: Redis would evict accepted tasks.
        """
        request = messages.request_of(tuple(args or ()), dict(kwargs or {}))
        task_id = task_id or new_task_id()
        if not is_task_id(task_id):
            raise InvalidRequest.of({"field": "task_id", "reason": "must be a lower-case UUID, version 4"})
        options = {
            **options,
            "link": with_ids(link) or None,
            "link_error": link_error,
            "shadow": shadow,
            "producer": producer,
            **self._lineage(options),
        }
        with _groups.member(options.get("group_id"), task_id):
            self.accept(request, task_id, options)
        result = self.AsyncResult(task_id)
        if options.get("add_to_parent", True) and self.app.current_worker_task:
            self.app.current_worker_task.add_trail(result)
        return result

    def _lineage(self, options: dict[str, Any]) -> dict[str, Any]:
        """Root and parent of the task, taken from the task that submits it, if one does."""
        parent = self.app.current_worker_task
        if parent is None:
            return {}
        running = parent.request
        return {
            "root_id": options.get("root_id") or running.root_id or running.id,
            "parent_id": options.get("parent_id") or running.id,
        }

    def accept(self, request: GenerationRequest, task_id: str, options: dict[str, Any]) -> Submitted:
        """Record a validated request and publish it: what every way in comes down to.

        Args:
            request: What is asked for.
            task_id: The task's id.
            options: Celery's options, as `apply_async` takes them, `caller` (or only its `owner`)
                and `replay_of`.

        Returns:
            The record as accepted; its terms are None where the id was accepted before.

        Raises:
            As `apply_async`.
        """
        settings, store = get_settings(), open_safe_store()
        request = with_options(request, options)
        caller = options.get("caller") or Caller(options.get("owner") or settings.owner)
        if request.webhook:
            guard.admit(request.webhook.url, settings)
        record = messages.new_record(request, task_id, caller.owner).but(replay_of=options.get("replay_of"))
        envelope = {name: options[name] for name in messages.ENVELOPE if options.get(name) is not None}
        terms = Terms(
            ttl_ms=(request.ttl_s or settings.task_ttl_s) * 1000,
            deadline_ms=0,
            fingerprint=messages.fingerprint(record),
            attempt_s=request.attempt_timeout_s or 0,
            envelope=kombu_json.dumps(envelope),
            webhook=messages.webhook_of(request, caller.signer),
        )
        delay_s = due_s(options)
        queue_s = request.queue_timeout_s or settings.queue_timeout_s
        # What a running task submits was let in with it: a chain does not break off at a limit.
        is_free = self.app.current_worker_task is not None
        place = caching.place_of(record, settings) if delay_s <= 0 else None
        stored = cache.find(store, place) if place and not caching.has_sequel(terms.envelope) else None
        admission = admit(store, settings, record, caller, is_delayed=delay_s > 0, is_free=is_free)
        submitted = store.submit(record, terms, request.deadline_s or settings.deadline_s, delay_s, queue_s)
        if submitted.terms is None:
            settlement.settle_now(store, settings, task_id, self.send)
        if submitted.is_clash:
            raise DuplicateTask(f"task id {task_id} was used before, for another request or one not accepted")
        if submitted.terms and stored and (ended := self._serve(submitted.record, submitted.terms, stored)):
            return replace(submitted, record=ended)
        is_waiting = admission.place == "waiting" and meter.is_waiting(store, record)
        if submitted.terms and not is_waiting:
            self._first_send(submitted.record, submitted.terms, delay_s, options.get("producer"))
        return submitted

    def _serve(self, record: Record, terms: Terms, stored: Stored) -> Record | None:
        """Complete a task that was just recorded by a result from the cache; None: publish it after all.

        Whatever breaks off here is healed by the outbox entry, whose message finds the same result.
        """
        store = open_store()
        try:
            ended = caching.answer(store, record, terms, uuid.uuid4().hex, stored)
        except StoreUnavailable as exc:
            log.warning("not answered from the cache", task_id=record.task_id, reason=str(exc))
            return None
        settlement.settle_now(store, get_settings(), record.task_id, self.send)
        return ended

    def _first_send(self, record: Record, terms: Terms, delay_s: float, producer: Any) -> None:
        """Publish a task that was just recorded; take it back if the broker does not confirm.

        If it runs in spite of that, the broker has it after all, and the submit has succeeded. What a
        running task submits is left to the outbox instead: nobody would submit the rest of a chain again.
        """
        try:
            self.send(record, terms, delay_s, producer)
        except (BrokerUnavailable, StoreUnavailable) as exc:
            if self.app.current_worker_task is not None:
                log.warning("left to the outbox to publish", task_id=record.task_id, reason=str(exc))
                return
            try:
                is_refused = _take_back(record.task_id)
            except StoreUnavailable:
                _withdrawals.add(record.task_id)
                is_refused = True
            if is_refused:
                raise

    def send(self, record: Record, terms: Terms, delay_s: float = 0.0, producer: Any = None) -> None:
        """Publish the message of a recorded task, or leave it to the outbox until it is due.

        Its outbox entry must stand already: it is removed once the broker has confirmed. Where that
        fails, the message comes twice, and the claim sorts it out.

        Raises:
            BrokerUnavailable: The broker did not confirm in time. It may have the message.
            StoreUnavailable: Redis did not answer, and the broker has no message.
        """
        settings, store = get_settings(), open_store()
        if delay_s > 0 and not queues.is_rabbitmq(settings):
            store.schedule(record.task_id, delay_s)
            return
        queue = lanes.queue_of(record, settings)
        route = queues.wait_route(settings, delay_s) if delay_s > 0 else queues.lane_route(settings, queue)
        self._publish(record, terms, {**route, "routing_key": queue}, {}, producer)
        try:
            store.unschedule(record.task_id)
        except StoreUnavailable as exc:
            log.warning("outbox entry left behind", task_id=record.task_id, reason=str(exc))

    def send_dead(self, record: Record, terms: Terms, reason: str, attempts: list[dict[str, Any]]) -> None:
        """Publish the message of a task that failed for good to the dead letters.

        Args:
            record: The FAILED record.
            terms: Those it was accepted under.
            reason: Why it failed.
            attempts: What became of each attempt.

        Raises:
            BrokerUnavailable: The broker did not confirm.
        """
        settings = get_settings()
        queue = lanes.queue_of(record, settings)
        headers = {messages.REASON: reason, messages.ORIGIN: queue, messages.ATTEMPTS: attempts}
        self._publish(record, terms, {**queues.dead_route(settings), "routing_key": queue}, headers)

    def _publish(
        self,
        record: Record,
        terms: Terms,
        route: dict[str, Any],
        headers: dict[str, Any],
        producer: Any = None,
    ) -> None:
        """Publish a task's message once, confirmed and bounded in time."""
        settings = get_settings()
        with broker.producer(self.app, settings, producer) as lent:
            publish = partial(
                super().apply_async,
                (),
                messages.kwargs_of(record, terms),
                task_id=record.task_id,
                producer=lent,
                **read_envelope(terms.envelope),
                **route,
                priority=broker.transport_priority(settings, record.priority),
                headers={messages.HEADER: messages.header_of(record, terms), **headers},
                argsrepr=HIDDEN,
                kwargsrepr=HIDDEN,
                add_to_parent=False,
                retry=False,
                mandatory=True,
                confirm_timeout=settings.publish_timeout_s,
            )
            broker.confirmed(publish)
