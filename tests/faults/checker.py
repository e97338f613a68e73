"""Checks a history against the invariants that the system promises to keep under faults.

`python -m tests.faults.checker HISTORY` prints each violation, and ends with 1 if there is one. The
idea is that of a total-queue checker: what was accepted, less what was seen to end, must be nothing.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.history import Entry, History

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
#: Status → how far a task has come. PROCESSING may go back to PENDING, as a new attempt.
RANKS = {"PENDING": 0, "PROCESSING": 0, **dict.fromkeys(TERMINAL, 1)}
#: Error types of tasks whose messages are kept among the dead letters.
DEAD_ERRORS = frozenset({"worker_lost", "TransientEngineError"})
#: Share of the offered tasks that must end again, and seconds in which it must, once a fault is over.
RECOVERED_SHARE, RECOVERY_S = 0.9, 30.0
#: What a process may hold at the end of a run, in terms of what it held at its beginning, and the
#: values below which growth means nothing.
GROWTH = 1.5
FLOORS = {"rss_mb": 400.0, "fds": 150, "redis_clients": 150, "connections": 60}
#: Samples below which no trend is looked for.
SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that a history breaks."""

    #: `I1` to `I15`.
    invariant: str
    what: str


class Facts:
    """A history, by kind of entry and by task."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.kinds: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            self.kinds[entry["kind"]].append(entry)
        self.meta: dict[str, Any] = self.kinds["meta"][0] if self.kinds["meta"] else {}
        self.final: dict[str, Any] = self.kinds["final"][-1] if self.kinds["final"] else {}
        self.submits = self.kinds["submit"]
        #: Id → the submit that was first told it.
        self.accepted: dict[str, Entry] = {}
        for submit in self.submits:
            if submit["status"] == 202 and submit["id"]:
                self.accepted.setdefault(submit["id"], submit)
        self.reads: dict[str, list[Entry]] = defaultdict(list)
        for read in sorted(self.kinds["read"], key=lambda read: float(read["until"])):
            self.reads[read["id"]].append(read)
        self.records: dict[str, dict[str, Any]] = self.final.get("records", {})
        self._lost_all = [e["at"] for e in self.kinds["store"] if e["event"] == "lost_all"]
        self._emptied = [e["at"] for e in self.kinds["store"] if e["event"] in ("emptied", "lost_all")]

    def is_exempt(self, submit: Entry) -> bool:
        """Whether everything that knew of a task was wiped after it was accepted."""
        return any(at >= submit["at"] for at in self._lost_all)

    def was_emptied(self, since: float, until: float) -> bool:
        """Whether the records were wiped in between."""
        return any(since <= at <= until for at in self._emptied)

    def seen(self, task_id: str) -> list[dict[str, Any]]:
        """The records that were read of a task in order, the last one included."""
        found = [read["record"] for read in self.reads[task_id] if read["record"]]
        return found + ([self.records[task_id]] if task_id in self.records else [])

    def ended(self, task_id: str) -> bool:
        """Whether a task was seen to be terminal."""
        return any(record["status"] in TERMINAL for record in self.seen(task_id))


def check(entries: Iterable[Entry]) -> list[Violation]:
    """All violations in a history."""
    facts = Facts(entries)
    return [Violation(name, what) for name, rule in RULES.items() for what in rule(facts)]


def every_accepted_task_ends_once(facts: Facts) -> Iterator[str]:
    for task_id, submit in facts.accepted.items():
        statuses = {r["status"] for r in facts.seen(task_id)} & TERMINAL
        if len(statuses) > 1:
            yield f"{task_id} ({submit['op']}) ended as {sorted(statuses)}"
        if not statuses and not facts.is_exempt(submit) and not _ended_before_wipe(facts, task_id):
            yield f"{task_id} ({submit['op']}) was accepted and did not end"


def _ended_before_wipe(facts: Facts, task_id: str) -> bool:
    """Whether a task had been completed or cancelled whose record was wiped afterwards."""
    ends = [r["at"] for r in facts.kinds["run"] if r["id"] == task_id and r["step"] == "end"]
    ends += [c["at"] for c in facts.kinds["cancel"] if c["id"] == task_id and c["status"] == 200]
    return any(facts.was_emptied(at, float("inf")) for at in ends)


def a_status_never_goes_back(facts: Facts) -> Iterator[str]:
    for task_id in facts.reads:
        before: dict[str, Any] | None = None
        for record in facts.seen(task_id):
            if before and RANKS[record["status"]] < RANKS[before["status"]]:
                yield f"{task_id} went from {before['status']} to {record['status']}"
            if before and before["status"] in TERMINAL and record["status"] != before["status"]:
                yield f"{task_id} was {before['status']} and became {record['status']}"
            before = record


def a_result_is_the_same_for_all(facts: Facts) -> Iterator[str]:
    for task_id in facts.reads:
        ended = [r for r in facts.seen(task_id) if r["status"] in TERMINAL]
        if len({(r["result_sha256"], r["attempt"], r["updated_at"]) for r in ended}) > 1:
            yield f"{task_id} was read with {len(ended)} endings that are not all the same"
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for delivery in facts.kinds["webhook"]:
        ids[delivery["id"], delivery["event"]].add(delivery["webhook_id"])
    for (task_id, event), found in ids.items():
        if len(found) > 1:
            yield f"{event} of {task_id} was delivered under {len(found)} webhook ids"


def nothing_accepted_is_left(facts: Facts) -> Iterator[str]:
    for task_id, submit in facts.accepted.items():
        is_there = task_id in facts.records or facts.ended(task_id)
        is_there = is_there or _ended_before_wipe(facts, task_id)
        if facts.final and not is_there and not facts.is_exempt(submit):
            yield f"{task_id} ({submit['op']}) was accepted and is nowhere"


def what_was_accepted_can_be_read(facts: Facts) -> Iterator[str]:
    for task_id, submit in facts.accepted.items():
        for read in facts.reads[task_id]:
            missing = read["status"] == 404 and read["at"] >= submit["until"]
            own = read["owner"] == submit["owner"]
            if missing and own and not facts.was_emptied(submit["at"], read["until"]):
                yield f"{task_id} was answered 404 at {read['at']:.3f}, accepted at {submit['until']:.3f}"


def every_key_expires(facts: Facts) -> Iterator[str]:
    limit = facts.meta.get("ttl_s", float("inf")) * 1000
    for scan in facts.kinds["ttl"]:
        for name, left in scan["keys"].items():
            if left == -1 or left > limit:
                yield f"{name} had {left} ms to live at {scan['at']:.3f}"


def nothing_waits_at_the_end(facts: Facts) -> Iterator[str]:
    for name, messages in facts.final.get("queues", {}).items():
        if messages:
            yield f"{messages} messages are left in {name}"
    dead = {letter["id"] for letter in facts.final.get("dead", []) if letter["id"]}
    for task_id in dead & facts.records.keys():
        if facts.records[task_id]["status"] != "FAILED":
            yield f"{task_id} is a dead letter and {facts.records[task_id]['status']}"
    for task_id, record in facts.records.items():
        gave_up = record["status"] == "FAILED" and record["error_type"] in DEAD_ERRORS
        if gave_up and task_id not in dead and not facts.was_emptied(0, float("inf")):
            yield f"{task_id} FAILED with {record['error_type']} and is no dead letter"


def what_was_refused_has_no_effect(facts: Facts) -> Iterator[str]:
    answered: dict[str, set[int | None]] = defaultdict(set)
    for submit in facts.submits:
        answered[submit["op"]].add(submit["status"])
        if submit["status"] not in (202, None) and submit["visible"]:
            yield f"{submit['op']} was refused with {submit['status']} and became visible"
    # an op that was never answered is in doubt, and may have run
    refused = {op for op, statuses in answered.items() if not statuses & {200, 202, None}}
    for op in sorted({run["op"] for run in facts.kinds["run"]} & refused):
        yield f"{op} was refused with {sorted(map(str, answered[op]))} and ran"
    for task_id, record in facts.records.items():
        if record.get("op") in refused:
            yield f"{record['op']} was refused and {task_id} can be read"


def every_submit_is_answered_in_time(facts: Facts) -> Iterator[str]:
    bound = facts.meta.get("answer_bound_s", 10)
    for submit in facts.submits:
        took = submit["until"] - submit["at"]
        if submit["status"] is None and not submit.get("killed"):
            yield f"{submit['op']} got no answer in {took:.1f} s"
        elif took > bound and not submit.get("killed"):
            yield f"{submit['op']} was answered after {took:.1f} s"
        if submit["status"] in (429, 503) and not submit["retry_after"]:
            yield f"{submit['op']} was answered {submit['status']} without Retry-After"
        if (submit["status"] or 0) >= 500 and submit["status"] != 503:
            yield f"{submit['op']} was answered {submit['status']}"


def a_key_is_one_task(facts: Facts) -> Iterator[str]:
    answers: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for submit in facts.submits:
        if submit["key"] and submit["status"] in (200, 202) and submit["id"]:
            answers[submit["owner"], submit["key"]].append(submit)
    ended = {run["id"] for run in facts.kinds["run"] if run["step"] == "end"}
    for (owner, key), submits in answers.items():
        found = {submit["id"] for submit in submits}
        began, until = min(s["at"] for s in submits), max(s["until"] for s in submits)
        if len(found) > 1 and not facts.was_emptied(began, until):
            yield f"key {key} of {owner} led to {len(found)} tasks, of which {len(found & ended)} ran"


def nobody_reads_what_is_anothers(facts: Facts) -> Iterator[str]:
    for task_id, submit in facts.accepted.items():
        for read in facts.reads[task_id]:
            if read["owner"] != submit["owner"] and read["status"] not in (404, 503, None):
                yield f"{read['owner']} was answered {read['status']} for {task_id} of {submit['owner']}"


def no_secret_is_seen(facts: Facts) -> Iterator[str]:
    for leak in facts.kinds["leak"]:
        yield f"a prompt stands in {leak['where']}"


def it_recovers_by_itself(facts: Facts) -> Iterator[str]:
    for rate in facts.kinds["rate"]:
        if rate["since_heal_s"] > RECOVERY_S:
            yield f"row {rate['row']}: it took {rate['since_heal_s']:.1f} s to recover"
        elif rate["per_s"] < RECOVERED_SHARE * rate["baseline_per_s"]:
            yield f"row {rate['row']}: {rate['per_s']:.1f} tasks/s of {rate['baseline_per_s']:.1f} end"


def attempts_are_bounded(facts: Facts) -> Iterator[str]:
    most = facts.meta.get("max_attempts", float("inf"))
    seen = {task_id: facts.seen(task_id) for task_id in facts.reads.keys() | facts.records.keys()}
    for task_id, records in seen.items():
        failures = max((record["failures"] for record in records), default=0)
        if failures > most + 1:
            yield f"{task_id} had {failures} failures, {most} are allowed"
    wiped = facts.was_emptied(0, float("inf"))
    begun = Counter((r["id"], r["attempt"]) for r in facts.kinds["run"] if r["step"] == "begin")
    for (task_id, attempt), times in begun.items():
        if times > 1 and not wiped:
            yield f"attempt {attempt} at {task_id} began {times} times"
        if attempt > 2 * most + 2:
            yield f"{task_id} came to attempt {attempt}"


def nothing_grows_without_bound(facts: Facts) -> Iterator[str]:
    series: dict[str, list[Entry]] = defaultdict(list)
    for sample in facts.kinds["resources"]:
        series[sample["process"]].append(sample)
    for process, samples in series.items():
        for name, floor in FLOORS.items():
            values = [s[name] for s in samples if s.get(name) is not None]
            quarter = len(values) // 4
            if len(values) < SAMPLES:
                continue
            first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
            if last > max(floor, GROWTH * first):
                yield f"{name} of {process} grew from {first:g} to {last:g}"


RULES: dict[str, Callable[[Facts], Iterator[str]]] = {
    "I1": every_accepted_task_ends_once,
    "I2": a_status_never_goes_back,
    "I3": a_result_is_the_same_for_all,
    "I4": nothing_accepted_is_left,
    "I5": what_was_accepted_can_be_read,
    "I6": every_key_expires,
    "I7": nothing_waits_at_the_end,
    "I8": what_was_refused_has_no_effect,
    "I9": every_submit_is_answered_in_time,
    "I10": a_key_is_one_task,
    "I11": nobody_reads_what_is_anothers,
    "I12": no_secret_is_seen,
    "I13": it_recovers_by_itself,
    "I14": attempts_are_bounded,
    "I15": nothing_grows_without_bound,
}


def main() -> int:
    violations = check(History(Path(sys.argv[1])).read())
    for violation in violations:
        print(f"{violation.invariant}: {violation.what}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
