"""The janitor: settles what nobody else will, in one worker at a time.

Publishes due outbox entries, takes over lapsed leases, fails tasks past their deadline, and writes
down why a message became a dead letter. It only ever acts on what the store's scripts let it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from textgen import deadletters, outcomes, settlement, stuck
from textgen.errors import BrokerUnavailable, ConfigurationError, StoreBroken, StoreUnavailable
from textgen.lifecycle import VERSION, Status
from textgen.logs import outline
from textgen.settings import Settings
from textgen.store import Store, keys, meter, schedules, waiting
from textgen.store.answers import Control, Moved
from textgen.store.schedules import Schedule
from textgen.webhooks.dispatch import Dispatcher

if TYPE_CHECKING:
    from celery import Celery

log = structlog.get_logger(__name__)

#: Seconds between two rounds.
ROUND_S = 0.5
#: Milliseconds for which one worker is the janitor, unless it renews.
LEAD_MS = 5_000
#: Rounds between two looks for dead letters, and between two trims of the index.
DEAD_ROUNDS, TRIM_ROUNDS = 4, 120
#: Entries that are looked at before the leadership is renewed.
PAGE = 100
#: Seconds until the next round after one that failed.
PAUSE_S = 1.0
#: Seconds until a publish that failed is tried again.
AGAIN_S = 5.0


class Janitor:
    """The janitor of one worker: works while it leads.

    Args:
        app: Whose broker.
        settings: The settings.
        store: Where everything stands.
        name: The worker's name.
    """

    def __init__(self, app: Celery, settings: Settings, store: Store, name: str) -> None:
        self.settings = settings
        self.store = store
        self.name = name
        self.outbox = Schedule(store, keys.OUTBOX)
        self.watch = Schedule(store, keys.WATCH)
        self.deadbox = Schedule(store, keys.DEADBOX)
        self.webhooks = Schedule(store, keys.WEBHOOKS)
        self.dispatcher = Dispatcher(app, settings, store, self.webhooks)
        self.dead_letters = deadletters.DeadLetters(app, settings, store)
        self.stuck = stuck.Stuck(app, settings, store)
        self.unsettled = Schedule(store, keys.UNSETTLED)
        self._send = app.tasks["textgen.tasks.generate"].send
        self._rounds = 0

    def round(self) -> None:
        """Do what is due, if this worker leads.

        Raises:
            StoreUnavailable: Redis did not answer; the next round tries again.
        """
        if not schedules.lead(self.store, self.name, LEAD_MS):
            return
        self._each(self.watch, self._look)
        self._each(self.outbox, self._publish)
        self._each(self.unsettled, self._settle)
        settlement.publish(self.store, meter.let_in(self.store, self.settings.owner_share), self._send)
        self._each(self.deadbox, self._send_dead)
        self._each(self.webhooks, self.dispatcher.publish)
        self.stuck.look()
        if self._rounds % DEAD_ROUNDS == 0:
            self.dead_letters.drain()
        if self._rounds % TRIM_ROUNDS == 0:
            self.store.trim(self.settings.max_tasks_listed)
            waiting.prune(self.store)
        self._rounds += 1

    def _each(self, schedule: Schedule, act: Callable[[str, str], bool]) -> None:
        """Act once on each that is due, until there is no more or one asks to leave off."""
        seen: set[str] = set()
        while due := [entry for entry in schedule.due(len(seen) + PAGE) if entry[0] not in seen]:
            for task_id, score in due:
                seen.add(task_id)
                if not self._does(schedule, act, task_id, score):
                    return
            if not schedules.lead(self.store, self.name, LEAD_MS):
                return

    def _does(self, schedule: Schedule, act: Callable[[str, str], bool], task_id: str, score: str) -> bool:
        """Act on one that is due; put it off if it cannot be acted on, so that it holds up no other."""
        try:
            return act(task_id, score)
        except Exception as exc:  # whatever is wrong with one entry, all others come after it
            if isinstance(exc, (StoreUnavailable, BrokerUnavailable)) and not isinstance(exc, StoreBroken):
                raise
            log.error("janitor stumbled", task_id=task_id, where=outline(exc))
            schedule.postpone(task_id, self.store.now_ms() + AGAIN_S * 1000)
            return True

    def _publish(self, task_id: str, score: str) -> bool:
        """Publish the message of an outbox entry that is due; False if the broker refuses."""
        control, record = self.store.control(task_id), self.store.get(task_id)
        if control is None or record is None or record.status.is_terminal or record.v > VERSION:
            self.outbox.settle(task_id, score)
            return True
        if record.status is Status.PROCESSING and control.lease_ms > self.store.now_ms():
            # Its attempt lives: a claim makes sense when its lease has run out.
            self.outbox.postpone(task_id, control.lease_ms + 1)
            return True
        if self.settings.owner_share and meter.is_waiting(self.store, record):
            self.outbox.settle(task_id, score)  # it is published when its turn comes
            return True
        self.outbox.postpone(task_id, self.store.now_ms() + AGAIN_S * 1000)
        try:
            self._send(record, control.terms)
        except BrokerUnavailable as exc:
            log.warning("outbox entry not published", task_id=task_id, reason=str(exc))
            return False
        schedules.count(self.store, "published")
        return True

    def _settle(self, task_id: str, score: str) -> bool:
        """Settle what is held for a task, unless it goes on."""
        try:
            if not settlement.sweep(self.store, self.settings, task_id, self._send):
                # 0: somebody was about to end it
                wait_s = settlement.LOOK_S if float(score) else settlement.ENDING_S
                self.unsettled.postpone(task_id, self.store.now_ms() + wait_s * 1000)
        except BrokerUnavailable as exc:
            log.warning("waiting task not published", reason=str(exc))
        return True

    def _send_dead(self, task_id: str, score: str) -> bool:
        """Put the message of a task that failed for good among the dead letters."""
        self.deadbox.postpone(task_id, self.store.now_ms() + AGAIN_S * 1000)
        self.dead_letters.send(task_id)
        self.deadbox.remove(task_id)
        return True

    def _look(self, task_id: str, score: str) -> bool:
        """Look at a task whose lease or deadline may have passed."""
        control, record = self.store.control(task_id), self.store.get(task_id)
        now = self.store.now_ms()
        if control is None or record is None or record.status.is_terminal:
            self.watch.settle(task_id, score)
        elif control.cancel:
            outcomes.cancel(self.store, task_id)
        elif now >= control.deadline_ms:
            if outcomes.expire(self.store, record, control.rev).outcome is Moved.OK:
                self._note("expired", task_id)
        elif control.is_stale(now) and record.status is Status.PENDING:
            expired = outcomes.expire(self.store, record, control.rev, outcomes.QUEUE_TIMEOUT)
            if expired.outcome is Moved.OK:
                self._note("waited too long", task_id)
        elif record.status is Status.PROCESSING and now >= control.lease_ms:
            moved = outcomes.lapse(self.store, self.settings, record, control.rev)
            if moved.outcome is Moved.OK:
                self.store.schedule(task_id, 0.0)
                self._note("taken over", task_id)
        else:
            self.watch.postpone(task_id, max(_next_look_ms(control), now + 1000))
        return True

    def _note(self, what: str, task_id: str) -> None:
        schedules.count(self.store, what)
        log.warning(f"task {what}", task_id=task_id)


def _next_look_ms(control: Control) -> float:
    """When the next lease or limit of a task that goes on may have passed."""
    if control.status == Status.PROCESSING:
        return min(control.lease_ms, control.deadline_ms)
    waits = control.attempt == 0 and control.queue_until_ms > 0
    return min(control.queue_until_ms, control.deadline_ms) if waits else control.deadline_ms


class Rounds:
    """The thread in which a worker's janitor makes its rounds, and says that the worker is there.

    Args:
        make: Makes the janitor, on first use.
        beat: Called before each round.
    """

    def __init__(self, make: Callable[[], Janitor], beat: Callable[[], None]) -> None:
        self._make = make
        self._beat = beat
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, if it does not run yet."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Make no further round."""
        self._stopped.set()

    def _run(self) -> None:
        janitor: Any = None
        while not self._stopped.wait(ROUND_S):
            try:
                self._beat()
                janitor = janitor or self._make()
                janitor.round()
            except (StoreUnavailable, BrokerUnavailable, ConfigurationError) as exc:
                log.warning("janitor waits", reason=str(exc))
                self._stopped.wait(PAUSE_S)
            except Exception as exc:  # noqa: BLE001 - one bad entry must not end all housekeeping
                log.error("janitor stumbled", where=outline(exc))
                self._stopped.wait(PAUSE_S)
