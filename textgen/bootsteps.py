"""What a worker does besides running tasks: queues, presence, janitor, and a stop within bounds."""

from __future__ import annotations

import _thread
import os
import threading
import time
from typing import Any

import structlog
from amqp.exceptions import AccessRefused
from billiard.process import current_process
from celery import bootsteps, signals
from celery.exceptions import WorkerShutdown
from celery.worker import state as worker_state
from celery.worker.consumer.tasks import Tasks

from textgen import (
    broker,
    engine_limits,
    engines,
    logs,
    persistence,
    queues,
    redis_intake,
    redis_transport,
    routes,
    serving,
)
from textgen.celery import app
from textgen.errors import ConfigurationError, EngineError, EngineUnusable, StoreForbidden, StoreUnavailable
from textgen.janitor import Janitor, Rounds
from textgen.received import GenerateRequest
from textgen.settings import get_settings
from textgen.store import open_safe_store, open_store, schedules

log = structlog.get_logger(__name__)

#: Exit code of a worker that its settings keep from working (sysexits.h).
EX_CONFIG = 78
#: Seconds for which a worker's word that it is there holds.
PRESENCE_S = 5.0
#: Seconds that events of tasks are gathered under gevent.
GATHER_S = 0.1
#: Seconds that attempts which were handed back have to stop, before the process ends without them.
STOP_S = 10.0


class Declare(bootsteps.StartStopStep):
    """Declares every queue before the worker consumes, and refuses what would lose tasks."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        if not queues.is_rabbitmq(get_settings()):  # before a channel is made, which keeps its readers
            redis_transport.survive_junk()
            redis_transport.survive_loss()
            redis_transport.reuse_clients()
            redis_transport.wait_for_connections()
            redis_intake.take_many()

    def start(self, c: Any) -> None:
        settings = get_settings()
        if not queues.is_rabbitmq(settings):
            redis_transport.count_by_server_time(c.connection)
        consumed = len(serving.consumed(c.app, settings))
        try:
            queues.refuse_timeout(settings, consumed)
            engines.names()  # refuses servers that are described wrong
            routes.names(settings)
            engine_limits.read(settings)
            persistence.persist(_make_sure_of_store)
            queues.declare(c.connection, settings)
        except AccessRefused as exc:
            log.critical("worker cannot work", reason=broker.forbidden(exc))
            raise WorkerShutdown(EX_CONFIG) from exc
        except (ConfigurationError, persistence.HandBack) as exc:
            log.critical("worker cannot work", reason=str(exc))
            raise WorkerShutdown(EX_CONFIG) from exc
        for limit in broker.limits(c.connection, settings, consumed):
            log.warning(limit)


def _make_sure_of_store() -> None:
    """As `open_safe_store`, but that a missing permission is nothing to wait for."""
    try:
        open_safe_store()
    except StoreForbidden as exc:
        raise ConfigurationError(str(exc)) from exc


class Warm(bootsteps.StartStopStep):
    """Loads the engines of this worker's lanes before it takes work, so that no task waits for a model.

    Not under prefork: there each child loads its own, and what the parent loaded would hang them.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, c: Any) -> None:
        others = serving.left_to_others(c.app, get_settings())
        if others:
            log.info("engines are left to other workers: their lanes are not consumed here", engines=others)
        if "prefork" not in type(c.pool).__module__:
            warm()
        _start_threads(c.pool)


class GatherEvents(bootsteps.StartStopStep):
    """Publishes events of tasks together under gevent too, as Celery does where it has an event loop."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self.flushes: Any = None

    def start(self, c: Any) -> None:
        if c.hub is None and c.event_dispatcher.enabled:
            c.event_dispatcher.buffer_group = frozenset({"task"})
            self.flushes = c.timer.call_repeatedly(GATHER_S, c.event_dispatcher.flush)

    def stop(self, c: Any) -> None:
        if self.flushes is not None:
            self.flushes.cancel()
            self.flushes = None
            c.event_dispatcher.flush()


def _start_threads(pool: Any) -> None:
    """Start the threads of a pool now: each that is started later holds up whoever hands out tasks."""
    executor = getattr(pool, "executor", None)
    if executor is None:
        return
    started = threading.Event()
    try:
        for _ in range(pool.limit):
            executor.submit(started.wait)
    except RuntimeError as exc:
        log.critical("worker cannot work", reason=f"the system gives it no {pool.limit} threads")
        raise WorkerShutdown(EX_CONFIG) from exc
    finally:
        started.set()


@signals.worker_process_init.connect
def warm_child(**_: Any) -> None:
    """Set up the engines of a prefork pool's child, which runs one task at a time; or of a solo pool."""
    settings = get_settings()
    if current_process().name != "MainProcess":
        engines.be_one_of(settings.workers * settings.concurrency)
    warm()


def warm() -> None:
    """Set up the engines of this worker's lanes; where one cannot work, its tasks will say so."""
    try:
        names = serving.expected(app, get_settings())
    except ConfigurationError as exc:
        log.error("the default engine does not work here", reason=str(exc))
        return
    for name in names:
        _set_up(name)


def _set_up(name: str) -> None:
    try:
        engine = engines.get_engine(name)
    except (ConfigurationError, EngineError) as exc:
        log.error("an engine does not work here", engine=name, reason=str(exc))
        return
    except Exception as exc:  # noqa: BLE001 - a bug of one engine is nothing to the others
        log.error("an engine broke", engine=name, where=logs.outline(exc))
        return
    # of the children of a prefork pool one is enough; other pools have no children, and no index
    if engine.is_remote and getattr(current_process(), "index", 0) == 0:
        threading.Thread(target=_ask, args=(engine,), name="ask-provider", daemon=True).start()


def _ask(engine: engines.Engine) -> None:
    """Have a bad key be found when the worker starts, and not by the first task."""
    try:
        engine.check()
    except EngineUnusable as exc:
        log.error("an engine's provider refuses", engine=engine.name, reason=str(exc))
    except EngineError as exc:
        log.warning("an engine's provider could not be asked", engine=engine.name, reason=str(exc))
    except Exception as exc:  # noqa: BLE001 - as above
        log.error("an engine broke", engine=engine.name, where=logs.outline(exc))


class Housekeeping(bootsteps.StartStopStep):
    """Runs the janitor's rounds and the worker's presence while the worker lives."""

    requires = ("celery.worker.consumer.tasks:Tasks", Warm)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self.consumer = c
        self.is_connected = False
        self.rounds = Rounds(self._janitor, self._beat)

    def start(self, c: Any) -> None:
        self.is_connected = True
        self.rounds.start()

    def stop(self, c: Any) -> None:
        self.is_connected = False

    def shutdown(self, c: Any) -> None:
        self.rounds.stop()
        try:
            schedules.present(open_store(), c.hostname, 0)
            schedules.abdicate(open_store(), c.hostname)
        except StoreUnavailable:
            log.warning("could not sign off")

    def _janitor(self) -> Janitor:
        return Janitor(self.consumer.app, get_settings(), open_store(), self.consumer.hostname)

    def _beat(self) -> None:
        if not self.is_connected:
            return
        schedules.present(open_store(), self.consumer.hostname, PRESENCE_S)
        if not queues.is_rabbitmq(get_settings()):
            redis_transport.renew_deliveries(self.consumer.task_consumer)


@signals.worker_shutting_down.connect
def hand_back_later(**_: Any) -> None:
    """Give running attempts their grace when the worker is told to stop, then hand them back."""
    # not by threading, whose threads are waited for: under gevent nothing can be waited for in here
    _thread.start_new_thread(_hand_back, ())


def _hand_back() -> None:
    time.sleep(get_settings().shutdown_grace_s)
    give_up = time.monotonic() + STOP_S
    while time.monotonic() < give_up:
        for request in list(worker_state.active_requests):
            if isinstance(request, GenerateRequest):
                request.hand_back()
        time.sleep(0.5)
    log.error("stopping without attempts that do not stop", tasks=len(worker_state.active_requests))
    os._exit(1)


@signals.setup_logging.connect
def configure_logging(loglevel: int | None = None, **_: object) -> None:
    """Log as every process of textgen does, instead of as Celery would."""
    logs.configure(loglevel or "INFO")


# Without this either may come first, and Celery's knows no word for what is wrong with a queue.
Tasks.requires = (*Tasks.requires, Declare)
app.steps["consumer"].add(Declare)
app.steps["consumer"].add(Warm)
app.steps["consumer"].add(GatherEvents)
app.steps["consumer"].add(Housekeeping)
