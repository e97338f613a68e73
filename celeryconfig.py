"""Celery's settings, all taken from `textgen.settings`. Every public name here is one of Celery's."""

import sys as _sys

from textgen import broker as _broker
from textgen import queues as _queues
from textgen.settings import get_settings as _get_settings

_settings = _get_settings()

broker_url = _settings.broker
broker_transport_options = _broker.transport_options(_settings)
broker_connection_timeout = _settings.publish_timeout_s
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
#: Seconds after twice of which RabbitMQ takes a silent worker for gone, and gives what it held to
#: others. A solo pool is silent while it runs a task.
broker_heartbeat = 0 if {"solo", "-Psolo", "--pool=solo"} & set(_sys.argv) else 10
#: Connections of one process that publish at the same time.
broker_pool_limit = 10

result_backend = "textgen.backend:RecordBackend"
result_extended = False
#: One backend serves all threads: it holds nothing of a task.
result_backend_thread_safe = True

accept_content = ["json"]
result_accept_content = ["json"]
task_serializer = "json"
result_serializer = "json"

task_queues = _queues.lanes(_settings)
task_default_queue = _settings.queue
task_create_missing_queues = False
task_default_delivery_mode = "persistent"
#: A repeated publish multiplies messages; what is in doubt is settled by the outbox instead.
task_publish_retry = False

task_acks_late = True
task_reject_on_worker_lost = True
task_acks_on_failure = True
task_acks_on_timeout = True
#: Prefork's own limit, behind the worker's.
task_time_limit = _settings.attempt_timeout_s + _settings.attempt_margin_s + 20
task_send_sent_event = False

#: Celery takes `-P prefork` for its own default and lets this setting win over it; so this must give
#: way when prefork was asked for by name.
if not {"prefork", "-Pprefork", "--pool=prefork"} & set(_sys.argv):
    worker_pool = "threads"
worker_concurrency = _settings.concurrency
worker_prefetch_multiplier = _settings.prefetch_count
worker_consumer = "textgen.consumer:ScreeningConsumer"
worker_send_task_events = True
worker_hijack_root_logger = False
worker_cancel_long_running_tasks_on_connection_loss = False
worker_enable_prefetch_count_reduction = False
#: Seconds that a child of the prefork pool may take to load a model; then it is replaced.
worker_proc_alive_timeout = 300.0

#: Workers that were given one name twice share the queue of their commands, instead of the second one
#: stopping at its start.
control_queue_exclusive = False

#: Events nobody reads expire, so that an absent dashboard fills nothing.
event_queue_ttl = 5.0
event_queue_expires = 60.0
enable_utc = True
timezone = "UTC"
