"""The names of all keys in Redis. Nothing but records lives under `task:`."""

from __future__ import annotations

#: Everything that must be published at a time: score = due, in milliseconds.
OUTBOX = "outbox"
#: When the janitor has to look at a task that is not terminal: score = milliseconds.
WATCH = "tasks:watch"
#: The newest tasks of everybody, sorted as `textgen.store.positions` says.
CREATED = "tasks:created"
#: The dead letters: score = milliseconds since 1970 at which each arrived.
DEAD = "tasks:dead"
#: Tasks that failed for good and whose message is still to be put among the dead letters.
DEADBOX = "tasks:deadbox"
#: Deliveries of webhooks: score = milliseconds at which each is to be tried next.
WEBHOOKS = "webhooks:due"
#: The workers that can be given work: score = milliseconds until when each is believed to live.
WORKERS = "workers"
#: Key id → what is known of an API key (hash).
API_KEYS = "api-keys"
#: Which worker's janitor works at the moment.
LEADER = "janitor:leader"
#: What the janitor did, by kind: a hash of counters.
JANITOR_COUNTS = "janitor:counts"


#: Limits, ledger and waiting lists have one slot of their own, whose scripts see all of them.
#: What is held for each task that goes on: a hash.
HELD = "limit:{limits}:held"
#: When the janitor has to see whether what is held for a task is settled: score = milliseconds.
UNSETTLED = "usage:{limits}:due"
#: Owner and lane → tasks in it: a hash.
LANES = "limit:{limits}:lanes"
#: Owners and lanes with a waiting list: a set.
QUEUES = "waiting:{limits}"
#: In front of owner and key (`*`: everybody's): rates, tasks and reservations, each a hash.
SCOPES = "limit:{limits}:of:"
#: In front of owner and day: what each of the owner's keys has used, a hash.
LEDGER = "usage:{limits}:"
#: In front of owner and lane: tasks that wait to be let into the lane, in order.
WAITING = "waiting:{limits}:"
#: The KEYS of the scripts of limits and ledger.
METERING = [HELD, UNSETTLED, LANES, QUEUES, SCOPES, LEDGER, WAITING]

#: In front of the account of an engine: limits, pauses and circuits, in one slot of their own.
PROVIDERS = "limit:{providers}:"


def idempotency(owner: str, digest: str) -> str:
    """Which task an idempotency key of an owner leads to: a JSON string."""
    return f"idem:{owner}:{digest}"


def _cache(scope: str) -> str:
    return f"cache:{{{scope}}}:"


def cached(scope: str, digest: str) -> str:
    """The cached result of a request: a JSON string. All keys of one scope are in one slot."""
    return f"{_cache(scope)}result:{digest}"


def of_cache(scope: str) -> list[str]:
    """The KEYS of the scripts of the cache, as `lua/cached.lua` names them."""
    return [_cache(scope) + name for name in ("index", "sizes", "result:", "lead:", "followers:")]


def webhook_secrets(signer: str) -> str:
    """What a signer's webhooks are signed with: a JSON string."""
    return f"webhooks:secrets:{signer}"


def webhook_gone(owner: str, digest: str) -> str:
    """That an address an owner gave has answered 410 Gone."""
    return f"webhooks:gone:{owner}:{digest}"


def dead_letter(letter_id: str) -> str:
    """What is kept of one dead letter: a JSON string."""
    return f"dead:{letter_id}"


def listed(owner: str, what: str) -> str:
    """The tasks of an owner that have something in common; all sets of one owner are in one slot."""
    return f"tasks:{{{owner}}}:{what}"


def waiting(lane: str) -> str:
    """Who waits in a lane: `<task id>.<attempts so far>`, score = due, in milliseconds."""
    return f"tasks:waiting:{lane}"


def ends(lane: str) -> str:
    """The last attempts of a lane that ended: `<task id>.<attempt>`, score = milliseconds."""
    return f"tasks:ends:{lane}"


def record(task_id: str) -> str:
    """The record: a JSON string."""
    return f"task:{task_id}"


def events(task_id: str) -> str:
    """The event log, and the channel on which its entries are announced. In the record's slot."""
    return f"events:{{task:{task_id}}}"


def state(task_id: str) -> str:
    """The control fields: a hash. In the record's slot."""
    return f"state:{{task:{task_id}}}"


def webhooks(task_id: str) -> str:
    """What a task's webhook is still to be told: a hash. In the record's slot."""
    return f"webhooks:{{task:{task_id}}}"


def deliveries(task_id: str) -> str:
    """What became of a task's webhook deliveries: a list of JSON strings. In the record's slot."""
    return f"deliveries:{{task:{task_id}}}"


#: The keys of a task, in the order in which its scripts take them.
OF_TASK = (record, events, state, webhooks, deliveries)
